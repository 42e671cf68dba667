//! A certificate's subject replaced, and the certificate signed again. rcgen keeps one organization per name;
//! Kubernetes reads each organization as a group, so all of them have to arrive in the certificate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::PkiError;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const BIT_STRING: u8 = 0x03;
/// 2.5.4.3 and 2.5.4.10.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
const ORGANIZATION: [u8; 3] = [0x55, 0x04, 0x0a];

/// The distinguished name `O=…, O=…, CN=…`, DER.
pub(super) fn name(common_name: &str, organizations: &[&str]) -> Vec<u8> {
    let organizations = organizations.iter().map(|value| (ORGANIZATION, *value));
    let parts = organizations.chain([(COMMON_NAME, common_name)]).map(|(kind, value)| {
        let pair = [tlv(OBJECT_IDENTIFIER, &kind), tlv(UTF8_STRING, value.as_bytes())].concat();
        tlv(SET, &tlv(SEQUENCE, &pair))
    });
    tlv(SEQUENCE, &parts.collect::<Vec<_>>().concat())
}

/// The certificate with another subject (DER), signed by `sign`, as PEM.
pub(super) fn with_subject(
    certificate: &[u8],
    subject: &[u8],
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, rcgen::Error>,
) -> Result<String, PkiError> {
    let unusable = |error: &dyn std::fmt::Display| PkiError::Certificate(error.to_string());
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| unusable(&error))?;
    let tbs: &[u8] = parsed.tbs_certificate.as_ref();
    let old = parsed.subject().as_raw();
    let at = offset(tbs, old).ok_or_else(|| unusable(&"its subject is not part of it"))?;
    let header = header_length(tbs).ok_or_else(|| unusable(&"truncated"))?;
    let body = [&tbs[header..at], subject, &tbs[at + old.len()..]].concat();
    let tbs = tlv(SEQUENCE, &body);
    let signature = [&[0u8][..], &sign(&tbs)?].concat();
    // Issuer keys are ECDSA P-256 with SHA-256: 1.2.840.10045.4.3.2, without parameters.
    let algorithm = tlv(SEQUENCE, &tlv(OBJECT_IDENTIFIER, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]));
    Ok(pem(&tlv(SEQUENCE, &[tbs, algorithm, tlv(BIT_STRING, &signature)].concat())))
}

/// Where `part` lies inside `whole`, of which it is a sub-slice.
fn offset(whole: &[u8], part: &[u8]) -> Option<usize> {
    let at = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (at + part.len() <= whole.len()).then_some(at)
}

fn header_length(der: &[u8]) -> Option<usize> {
    let first = *der.get(1)?;
    Some(if first < 0x80 { 2 } else { 2 + usize::from(first & 0x7f) })
}

/// Tag, length, value.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    if value.len() < 0x80 {
        out.push(value.len() as u8);
    } else {
        let bytes = value.len().to_be_bytes();
        let significant = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        out.push(0x80 | significant.len() as u8);
        out.extend_from_slice(significant);
    }
    out.extend_from_slice(value);
    out
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for start in (0..text.len()).step_by(64) {
        out.push_str(&text[start..text.len().min(start + 64)]);
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}
