//! The stats: the document, the endpoint that serves it, and the command that reads it.

mod client;
pub mod document;
pub mod read;
pub mod server;
mod table;
