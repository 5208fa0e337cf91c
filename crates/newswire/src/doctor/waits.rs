//! What each thread waits for, and who holds the other end, link by link up to the root.

#[allow(dead_code, reason = "the chain that uses them follows")]
pub(crate) mod ends;
#[allow(dead_code, reason = "the chain that uses them follows")]
pub(crate) mod peers;
