//! Runs the Pods bound to this node and reports what became of them.
