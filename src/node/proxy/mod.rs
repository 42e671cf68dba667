//! Service semantics on this node: a pure plan of rules, and backends that apply it.
