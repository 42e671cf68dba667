//! The object model: meta, selectors, quantities, schema, patches, tables and the resource table.
