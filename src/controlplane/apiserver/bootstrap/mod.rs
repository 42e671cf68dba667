//! What a cluster holds before anybody has asked for anything: created, and kept complete, at every start.

mod policy;
