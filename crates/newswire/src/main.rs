//! newswire
fn main() {}
