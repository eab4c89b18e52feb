//! Groups, table maps and compressed transactions, from events made by hand.
