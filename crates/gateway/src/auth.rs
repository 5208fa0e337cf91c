//! Authentication and authorisation: which client may read which categories, and which may send orders.

// Authorises readers.
pub(crate) mod authenticator;

// Why a reader is not authorised.
pub(crate) mod error;

// The categories that a reader may see.
pub(crate) mod scope;

// Where a request has its token, and how tokens are compared.
pub(crate) mod bearer;

// What a valid token grants.
mod token_grant;

// The tokens of `gateway.read_tokens_file`.
mod static_tokens;

// JSON Web Tokens: the keys of `gateway.jwks_file`, and the rules for claims.
mod jwt;

// Verifies the signatures of JWTs, with ring.
mod signatures;

// Reads those two files, with every complaint at once.
mod files;

// What a reload changed in them.
mod credential_changes;

// Authorises the operator, by a token.
pub(crate) mod operator;
