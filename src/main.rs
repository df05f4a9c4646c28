//! The `sidedraft` command.
fn main() {}
