//! Chooses a node for every Pod that has none: filters, scores, bind.
