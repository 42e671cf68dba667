//! One generic REST engine over the resource table.
