//! What an HTTP/1.1 client sends, however it is cut: the reader never panics, and reads the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8])| callgate::fuzzing::read(input.1, input.0));
