//! The cases of the hostile catalogue that need the whole daemon.
