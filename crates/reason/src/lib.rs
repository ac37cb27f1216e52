//! The method as code: from messages to an answer with thinking, budget and parallel streams.
