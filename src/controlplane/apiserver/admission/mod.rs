//! What may be written, beyond who writes it: the ordered chain of plugins that complete and check objects.
