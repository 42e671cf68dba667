//! One file per controller, and the list of all of them.
