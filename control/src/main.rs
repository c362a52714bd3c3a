mod config;
mod dataplane;
mod keys;
mod limits;
mod network;
mod session;
fn main() {}
