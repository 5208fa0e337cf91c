//! Fuzz target: reading any bytes returns a result.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _any = feed::read(bytes, &feed::Hints::default());
});
