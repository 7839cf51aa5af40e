use crate::operator::Entry;

pub(super) const ENTRIES: &[Entry] = &[];
