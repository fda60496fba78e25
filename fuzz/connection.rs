//! A whole connection of HTTP/1.1: it ends, and answers as many requests as the reader sees.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8])| callgate::fuzzing::serve(input.1, input.0));
