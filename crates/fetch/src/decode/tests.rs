use std::io::Write as _;

use compression_codecs::{BrotliEncoder, EncodeV2, ZstdEncoder, brotli::params::EncoderParams};
use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use proptest::prelude::*;

use super::*;

/// Every form in which servers send a coding.
const FORMS: [&str; 5] = ["gzip", "zlib", "deflate", "br", "zstd"];

fn coding(form: &str) -> ContentCoding {
    codings(if form == "zlib" { "deflate" } else { form }).unwrap()[0]
}

fn finish(mut encoder: impl EncodeV2, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0; bytes.len() * 2 + 4096];
    let mut output = WriteBuffer::new_initialized(&mut out);
    let mut input = PartialBuffer::new(bytes);
    while !input.unwritten().is_empty() {
        encoder.encode(&mut input, &mut output).unwrap();
    }
    while !encoder.finish(&mut output).unwrap() {}
    output.written().to_vec()
}

fn encode(form: &str, bytes: &[u8]) -> Vec<u8> {
    match form {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "zlib" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "br" => finish(BrotliEncoder::new(EncoderParams::default()), bytes),
        _ => finish(ZstdEncoder::new(3), bytes),
    }
}

/// Decodes a body that arrives in pieces of these lengths, over and over; reads in pieces of `out` bytes.
fn decode(
    codings: &[ContentCoding],
    body: &[u8],
    pieces: &[usize],
    out: usize,
    max: usize,
) -> Result<Vec<u8>, Failure> {
    let mut decoder = ContentDecoder::new(codings, max).unwrap();
    let (mut document, mut piece) = (Vec::new(), vec![0; out]);
    let mut take = |decoder: &mut ContentDecoder| {
        loop {
            match decoder.read(&mut piece)? {
                0 => return Ok::<(), Failure>(()),
                bytes => document.extend_from_slice(&piece[..bytes]),
            }
        }
    };
    let mut lengths = pieces.iter().cycle();
    let mut rest = body;
    while !rest.is_empty() {
        let (next, after) = rest.split_at(rest.len().min(*lengths.next().unwrap()));
        decoder.push(next)?;
        take(&mut decoder)?;
        rest = after;
    }
    decoder.end();
    take(&mut decoder)?;
    Ok(document)
}

fn decode_whole(codings: &[ContentCoding], body: &[u8]) -> Result<Vec<u8>, Failure> {
    decode(codings, body, &[usize::MAX], 4096, 1 << 20)
}

fn class(result: Result<Vec<u8>, Failure>) -> FailureClass {
    result.unwrap_err().class
}

/// Bytes as in a document: with repetitions, and without.
fn document() -> impl Strategy<Value = Vec<u8>> {
    let random = prop::collection::vec(any::<u8>(), 0..5000);
    let repeated = ("[a-z<>]{0,20}", 0_usize..5000).prop_map(|(word, times)| word.repeat(times).into_bytes());
    prop_oneof![random, repeated]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_document_comes_out_as_it_went_in_however_it_is_cut_into_pieces(
        document in document(),
        pieces in prop::collection::vec(1_usize..3000, 1..5),
        out in 1_usize..20_000,
        first in 0_usize..FORMS.len(),
        second in prop::option::of(0_usize..FORMS.len()),
    ) {
        let forms: Vec<_> = [Some(first), second].into_iter().flatten().map(|form| FORMS[form]).collect();
        let body = forms.iter().fold(document.clone(), |body, form| encode(form, &body));
        let codings: Vec<_> = forms.iter().map(|form| coding(form)).collect();
        let decoded = decode(&codings, &body, &pieces, out, 1 << 20);
        prop_assert_eq!(decoded, Ok(document), "{:?}", forms);
    }

    #[test]
    fn nothing_a_server_sends_makes_a_decoder_panic_or_hang(
        document in document(),
        first in 0_usize..FORMS.len(),
        at in any::<prop::sample::Index>(),
        damage in prop::collection::vec(any::<u8>(), 1..8),
        out in 1_usize..200,
    ) {
        let mut body = encode(FORMS[first], &document);
        let at = at.index(body.len());
        for (byte, damage) in body[at..].iter_mut().zip(damage) {
            *byte ^= damage;
        }
        if let Err(failure) = decode(&[coding(FORMS[first])], &body, &[7, 100], out, 1 << 20) {
            let expected = [FailureClass::BadEncoding, FailureClass::Truncated];
            prop_assert!(expected.contains(&failure.class), "{}", failure);
        }
    }
}

#[test]
fn what_is_missing_is_told_apart_from_what_is_damaged() {
    let document = "<item>text</item>".repeat(50) + "0123456789abcdef";
    for form in FORMS {
        let body = encode(form, document.as_bytes());
        for end in 1..body.len() {
            let result = decode_whole(&[coding(form)], &body[..end]);
            assert_eq!(class(result), FailureClass::Truncated, "{form} {end} of {}", body.len());
        }
        let failure = decode_whole(&[coding(form)], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff").unwrap_err();
        assert_eq!(failure.class, FailureClass::BadEncoding, "{form}: {failure}");
    }
    let mut damaged = encode("gzip", document.as_bytes());
    let checksum = damaged.len() - 8;
    damaged[checksum] ^= 1;
    assert_eq!(class(decode_whole(&[ContentCoding::Gzip], &damaged)), FailureClass::BadEncoding);
}

#[test]
fn an_empty_body_has_no_coding() {
    for form in FORMS {
        assert_eq!(decode_whole(&[coding(form)], b""), Ok(Vec::new()), "{form}");
    }
}

#[test]
fn members_follow_each_other_and_other_bytes_after_them_are_ignored() {
    for (form, members) in [("gzip", 2), ("zstd", 2), ("br", 1), ("zlib", 1), ("deflate", 1)] {
        let member = encode(form, b"<rss/>");
        let document = b"<rss/>".repeat(members);
        for after in [&b""[..], b"\0", b"\0\0\0\0\0\0\0\0", b"\r\n", b"\x1f", b"<!-- cached -->"] {
            let body = [&member.repeat(members), after].concat();
            for pieces in [usize::MAX, 1] {
                let decoded = decode(&[coding(form)], &body, &[pieces], 100, 1000);
                assert_eq!(decoded.as_ref(), Ok(&document), "{form} {after:?}");
            }
        }
    }
    let skippable = b"\x5a\x2a\x4d\x18\x03\x00\x00\x00abc";
    let body = [&skippable[..], &encode("zstd", b"<rss/>"), skippable].concat();
    assert_eq!(decode_whole(&[ContentCoding::Zstd], &body), Ok(b"<rss/>".to_vec()));
    let cut = [encode("gzip", b"<rss/>"), encode("gzip", b"<rss/>")[..9].to_vec()].concat();
    assert_eq!(class(decode_whole(&[ContentCoding::Gzip], &cut)), FailureClass::Truncated);
}

#[test]
fn a_gzip_file_is_decoded_only_if_it_is_one() {
    let codings = [ContentCoding::GzipFile];
    for pieces in [1, 100] {
        let decode = |body: &[u8]| decode(&codings, body, &[pieces], 4, 1000);
        assert_eq!(decode(&encode("gzip", b"<rss/>")), Ok(b"<rss/>".to_vec()));
        for plain in [&b""[..], b"<", b"<rss>plain</rss>"] {
            assert_eq!(decode(plain), Ok(plain.to_vec()));
        }
    }
}

#[test]
fn a_plain_text_with_a_coding_is_named_as_such() {
    for form in FORMS {
        let message = match decode_whole(&[coding(form)], b"<?xml version='1.0'?><rss><channel/></rss>") {
            Err(failure) => failure.message,
            // Brotli and raw deflate have no magic numbers.
            Ok(document) => panic!("{form}: {document:?}"),
        };
        let name = coding(form).name();
        let expected = format!(
            "the server says that the body is compressed ({name}), but it is plain text; its Content-Encoding is wrong"
        );
        assert_eq!(message, expected);
    }
}

#[test]
fn no_stage_takes_much_more_than_the_longest_document() {
    // Members without content, for ever.
    let empty = encode("gzip", b"").repeat(10_000);
    assert_eq!(class(decode(&[ContentCoding::Gzip], &empty, &[5000], 4096, 1000)), FailureClass::TooLarge);
    // The same, in a coding that makes them small: what passes between the two is limited, too.
    let packed = encode("br", &encode("gzip", b"").repeat(10_000));
    assert!(packed.len() < 1000, "{}", packed.len());
    let codings = [ContentCoding::Gzip, ContentCoding::Brotli];
    assert_eq!(class(decode(&codings, &packed, &[5000], 4096, 1000)), FailureClass::TooLarge);
    // A document that cannot be compressed and is as long as it may be fits in all codings.
    let mut seed = 1_u64;
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed.to_be_bytes()[0]
    });
    let noise: Vec<u8> = noise.take(100_000).collect();
    for form in FORMS {
        let decoded = decode(&[coding(form)], &encode(form, &noise), &[4096], 4096, noise.len());
        assert!(decoded.unwrap() == noise, "{form}");
    }
}

#[test]
fn a_window_of_zstd_may_have_8_mib_and_no_more() {
    // A frame without content size, with a window of 2 to the power of this, and one raw block.
    let frame = |log: u8| [&[0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3, 0x31, 0, 0][..], b"<rss/>"].concat();
    assert_eq!(decode_whole(&[ContentCoding::Zstd], &frame(23)), Ok(b"<rss/>".to_vec()));
    assert_eq!(class(decode_whole(&[ContentCoding::Zstd], &frame(24))), FailureClass::BadEncoding);
}

#[test]
fn a_window_of_brotli_has_16_mib_at_most() {
    // The mark of a large window (which RFC 7932, section 9.1 does not allow), and its 30 bits.
    let body = [0x11, 0x1e, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let failure = decode_whole(&[ContentCoding::Brotli], &body).unwrap_err();
    assert_eq!(failure.class, FailureClass::BadEncoding, "{failure}");
}

#[test]
fn a_decoder_says_what_it_has_and_has_nothing_at_its_end() {
    let document = "<item>a text with an end</item>".repeat(30_000);
    for form in FORMS {
        let body = encode(form, document.as_bytes());
        let mut decoder = ContentDecoder::new(&[coding(form)], 1 << 20).unwrap();
        assert_eq!(decoder.bytes(), 0, "{form}");
        let (mut piece, mut most, mut made) = ([0; 4096], 0, 0);
        decoder.push(&body).unwrap();
        decoder.end();
        loop {
            match decoder.read(&mut piece).unwrap() {
                0 => break,
                bytes => made += bytes,
            }
            most = most.max(decoder.bytes());
        }
        assert_eq!(made, document.len(), "{form}");
        let least = if ["br", "zstd"].contains(&form) { document.len() } else { DEFLATE_WINDOW_BYTES };
        assert!((least..=3 * least + (1 << 20)).contains(&most), "{form}: {most} of {least}");
        assert!(decoder.bytes() <= body.len() + 64 * 1024, "{form}: {}", decoder.bytes());
    }
}
