//! The server's routes on the pocket model, without a socket. One binary, so that the model is loaded once.

mod chat;
mod load;
mod logprobs;
mod malformed;
mod manage;
mod others;
mod support;
