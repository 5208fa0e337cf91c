//! The fields of a certificate that explain why it is not trusted (RFC 5280, section 4.1). Nothing is verified here.

use news::Timestamp;

/// Longest name that is shown, in bytes.
const NAME_BYTES_MAX: usize = 100;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
/// The tag of the version, which certificates of version 1 do not have.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const BMP_STRING: u8 = 0x1e;
const TELETEX_STRING: u8 = 0x14;

/// Attributes of names: `id-at-commonName` and `id-at-organizationName`.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ORGANIZATION: &[u8] = &[0x55, 4, 10];

/// The algorithm `rsaEncryption`.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];

/// An element of DER: its tag, its content, and all of its bytes.
#[derive(Clone, Copy)]
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

/// Reads elements one after the other.
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let [tag, first, rest @ ..] = self.0 else { return None };
        let (length, content) = match *first {
            short @ ..=0x7f => (usize::from(short), rest),
            long @ 0x81..=0x83 => {
                let (length, content) = rest.split_at_checked(usize::from(long - 0x80))?;
                (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), content)
            }
            _ => return None,
        };
        let (content, after) = content.split_at_checked(length)?;
        let (whole, _) = self.0.split_at_checked(self.0.len() - after.len())?;
        self.0 = after;
        Some(Element { tag: *tag, content, whole })
    }
}

impl<'a> Elements<'a> {
    fn expect(&mut self, tag: u8) -> Option<Element<'a>> {
        self.next().filter(|element| element.tag == tag)
    }
}

/// Some fields of a certificate of any version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CertificateFields<'a> {
    pub(crate) issuer: CertificateName<'a>,
    pub(crate) subject: CertificateName<'a>,
    /// When it expires; `None` if that cannot be read.
    pub(crate) not_after: Option<Timestamp>,
    /// `SubjectPublicKeyInfo` in DER.
    pub(crate) key: &'a [u8],
    /// What is signed, in DER.
    pub(crate) signed: &'a [u8],
    /// The content of the algorithm of the signature.
    pub(crate) algorithm: &'a [u8],
    pub(crate) signature: &'a [u8],
}

/// A name in DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CertificateName<'a>(&'a [u8]);

impl<'a> CertificateFields<'a> {
    /// The fields of a certificate in DER; `None` if it is none.
    pub(crate) fn read(der: &'a [u8]) -> Option<Self> {
        let certificate = Elements(der).expect(SEQUENCE)?;
        let mut parts = Elements(certificate.content);
        let signed = parts.expect(SEQUENCE)?;
        let algorithm = parts.expect(SEQUENCE)?.content;
        // The first byte is the number of unused bits, none.
        let signature = parts.expect(BIT_STRING)?.content.get(1..)?;
        let mut fields = Elements(signed.content);
        let serial_number = fields.next().filter(|field| field.tag != VERSION).or_else(|| fields.next())?;
        if serial_number.tag != INTEGER {
            return None;
        }
        let _signature_algorithm = fields.expect(SEQUENCE)?;
        let issuer = CertificateName(fields.expect(SEQUENCE)?.content);
        let validity = fields.expect(SEQUENCE)?;
        let not_after = Elements(validity.content).nth(1).and_then(time);
        let subject = CertificateName(fields.expect(SEQUENCE)?.content);
        let key = fields.expect(SEQUENCE)?.whole;
        Some(Self { issuer, subject, not_after, key, signed: signed.whole, algorithm, signature })
    }

    /// The length of its RSA key in bits; `None` if the key is of another kind.
    pub(crate) fn rsa_bits(&self) -> Option<usize> {
        let mut key = Elements(Elements(self.key).expect(SEQUENCE)?.content);
        let algorithm = key.expect(SEQUENCE)?.content;
        Elements(algorithm).expect(OBJECT_IDENTIFIER).filter(|kind| kind.content == RSA)?;
        let key = key.expect(BIT_STRING)?.content.get(1..)?;
        let modulus = Elements(Elements(key).expect(SEQUENCE)?.content).expect(INTEGER)?.content;
        let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
        Some(modulus.len() * 8 - usize::try_from(modulus.first()?.leading_zeros()).unwrap_or(0))
    }

    /// Whether the certificate names itself as its issuer.
    pub(crate) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }
}

impl CertificateName<'_> {
    /// The common name and the organisation, such as `R11 (Let's Encrypt)`.
    pub(crate) fn shown(self) -> String {
        match (self.attribute(COMMON_NAME), self.attribute(ORGANIZATION)) {
            (Some(name), Some(organization)) if name != organization => format!("{name} ({organization})"),
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => "an authority without a name".to_owned(),
        }
    }

    fn attribute(self, wanted: &[u8]) -> Option<String> {
        let sets = Elements(self.0).filter(|set| set.tag == SET);
        sets.flat_map(|set| Elements(set.content)).find_map(|attribute| {
            let mut parts = Elements(attribute.content);
            parts.expect(OBJECT_IDENTIFIER).filter(|kind| kind.content == wanted)?;
            let text = text(parts.next()?);
            let end = text.floor_char_boundary(NAME_BYTES_MAX);
            Some(text[..end].trim().to_owned()).filter(|text| !text.is_empty())
        })
    }
}

/// A time in UTC with seconds, as RFC 5280 writes it (section 4.1.2.5): years of two digits are 1950 to 2049.
fn time(time: Element<'_>) -> Option<Timestamp> {
    let text = str::from_utf8(time.content).ok().filter(|text| text.is_ascii())?;
    let (year, rest) = match time.tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            (format!("{}{year}", if year < "50" { "20" } else { "19" }), rest)
        }
        GENERALIZED_TIME => text.split_at_checked(4).map(|(year, rest)| (year.to_owned(), rest))?,
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2);
    let (date, clock) = ([two(0)?, two(2)?], [two(4)?, two(6)?, two(8)?]);
    format!("{year}-{}T{}{}", date.join("-"), clock.join(":"), rest.get(10..)?).parse().ok()
}

/// A string of any of the types that names have.
fn text(string: Element<'_>) -> String {
    match string.tag {
        BMP_STRING => {
            let units = string.content.chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
            char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
        TELETEX_STRING => string.content.iter().copied().map(char::from).collect(),
        _ => String::from_utf8_lossy(string.content).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, PublicKeyData as _};

    use super::*;

    fn certificate(names: &[(DnType, DnValue)]) -> (Vec<u8>, KeyPair) {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().der().to_vec(), key)
    }

    #[test]
    fn the_names_and_the_key_of_a_certificate_are_read() {
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        let cases = [
            (vec![], "an authority without a name"),
            (vec![(DnType::CommonName, utf8("Größe"))], "Größe"),
            (vec![(DnType::OrganizationName, utf8("Example"))], "Example"),
            (
                vec![(DnType::OrganizationName, utf8("Example")), (DnType::CommonName, utf8("R1"))],
                "R1 (Example)",
            ),
            (vec![(DnType::CommonName, utf8("x")), (DnType::OrganizationName, utf8("x"))], "x"),
            (vec![(DnType::CommonName, DnValue::BmpString("Größe".try_into().unwrap()))], "Größe"),
            (vec![(DnType::CommonName, DnValue::PrintableString("Plain".try_into().unwrap()))], "Plain"),
        ];
        for (names, shown) in cases {
            let (der, key) = certificate(&names);
            let fields = CertificateFields::read(&der).unwrap();
            assert!(fields.is_self_issued());
            assert_eq!(fields.issuer.shown(), shown);
            assert_eq!(fields.key, key.subject_public_key_info());
        }
        let (der, _) = certificate(&[(DnType::CommonName, utf8(&"é".repeat(200)))]);
        assert_eq!(CertificateFields::read(&der).unwrap().subject.shown(), "é".repeat(50));
    }

    #[test]
    fn the_date_until_which_a_certificate_is_valid_is_read() {
        for (tag, text, expected) in [
            (UTC_TIME, "491231235959Z", Some("2049-12-31T23:59:59Z")),
            (UTC_TIME, "500101000000Z", Some("1950-01-01T00:00:00Z")),
            (GENERALIZED_TIME, "20500229120000Z", None),
            (GENERALIZED_TIME, "20520229120000Z", Some("2052-02-29T12:00:00Z")),
            (UTC_TIME, "4912312359Z", None),
            (UTC_TIME, "", None),
            (GENERALIZED_TIME, "20\u{e9}0101000000Z", None),
            (INTEGER, "491231235959Z", None),
        ] {
            let content = text.as_bytes();
            let read = time(Element { tag, content, whole: content });
            assert_eq!(read.map(|at| at.to_string()).as_deref(), expected, "{text}");
        }
        let mut params = CertificateParams::new([]).unwrap();
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let read = CertificateFields::read(certificate.der()).unwrap().not_after;
        assert_eq!(read.map(|at| at.to_string()).as_deref(), Some("2002-01-01T00:00:00Z"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()) {
            let shown = |der: &[u8]| CertificateFields::read(der).map(|fields| fields.issuer.shown());
            shown(&bytes);
            let (mut der, _) = certificate(&[(DnType::CommonName, DnValue::Utf8String("a".to_owned()))]);
            let at = at.index(der.len());
            for (byte, damage) in der[at..].iter_mut().zip(&bytes[..bytes.len().min(8)]) {
                *byte ^= damage;
            }
            if let Some(shown) = shown(&der) {
                prop_assert!(!shown.is_empty());
            }
        }
    }
}
