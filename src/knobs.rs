//! Every environment variable that the library reads, declared in one place.
