//! Bytes elsewhere: expanding globs, reading byte windows, writing results, on file systems and object stores.
