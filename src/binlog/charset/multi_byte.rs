//! The East Asian character sets: encoding_rs where it maps as MySQL does, corrected where it does not.

use encoding_rs::Encoding;

use super::corrections::{self, Correction, UNMAPPED};

/// One multi-byte character set of MySQL.
#[derive(Debug)]
pub(super) struct MultiByte {
    pub(super) name: &'static str,
    /// The WHATWG encoding of the same family.
    base: &'static Encoding,
    corrections: &'static [Correction],
    /// Bytes of the well-formed character that the slice begins with, which is not ASCII.
    length: fn(&[u8]) -> Option<usize>,
}

const fn set(
    name: &'static str,
    base: &'static Encoding,
    corrections: &'static [Correction],
    length: fn(&[u8]) -> Option<usize>,
) -> MultiByte {
    MultiByte { name, base, corrections, length }
}

pub(super) static BIG5: MultiByte = set("big5", encoding_rs::BIG5, corrections::BIG5, big5_length);
pub(super) static CP932: MultiByte = set("cp932", encoding_rs::SHIFT_JIS, &[], sjis_length);
pub(super) static SJIS: MultiByte = set("sjis", encoding_rs::SHIFT_JIS, corrections::SJIS, sjis_length);
pub(super) static EUCJPMS: MultiByte = set("eucjpms", encoding_rs::EUC_JP, corrections::EUCJPMS, euc_jp_length);
pub(super) static UJIS: MultiByte = set("ujis", encoding_rs::EUC_JP, corrections::UJIS, euc_jp_length);
pub(super) static EUCKR: MultiByte = set("euckr", encoding_rs::EUC_KR, &[], euckr_length);
pub(super) static GB18030: MultiByte = set("gb18030", encoding_rs::GB18030, corrections::GB18030, gb18030_length);
pub(super) static GB2312: MultiByte = set("gb2312", encoding_rs::GBK, corrections::GB2312, gb2312_length);
pub(super) static GBK: MultiByte = set("gbk", encoding_rs::GBK, corrections::GBK, gbk_length);

impl MultiByte {
    /// Appends the text of `bytes`; `None` if they are not well-formed.
    pub(super) fn append(&self, bytes: &[u8], out: &mut String) -> Option<()> {
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if first.is_ascii() {
                out.push(char::from(first));
                rest = &rest[1..];
                continue;
            }
            let (character, behind) = rest.split_at_checked((self.length)(rest)?)?;
            self.append_character(character, out);
            rest = behind;
        }
        Some(())
    }

    fn append_character(&self, character: &[u8], out: &mut String) {
        if let Some(code_point) = self.correction(character) {
            out.push(char::from_u32(code_point).unwrap_or('?'));
            return;
        }
        match self.base.decode_without_bom_handling_and_without_replacement(character) {
            Some(text) => out.push_str(&text),
            // Well-formed, so the server stores it, but without a Unicode equivalent.
            None => out.push('?'),
        }
    }

    fn correction(&self, character: &[u8]) -> Option<u32> {
        let code = character.iter().fold(0, |code, byte| code << 8 | u32::from(*byte));
        let behind = self.corrections.partition_point(|run| run.first <= code);
        let run = self.corrections.get(behind.checked_sub(1)?)?;
        let offset = code - run.first;
        match run.code_point {
            _ if offset >= run.length => None,
            UNMAPPED => Some(UNMAPPED),
            start => Some(start + offset),
        }
    }
}

fn big5_length(bytes: &[u8]) -> Option<usize> {
    matches!(bytes, [0xA1..=0xF9, 0x40..=0x7E | 0xA1..=0xFE, ..]).then_some(2)
}

fn sjis_length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [0xA1..=0xDF, ..] => Some(1),
        [0x81..=0x9F | 0xE0..=0xFC, 0x40..=0x7E | 0x80..=0xFC, ..] => Some(2),
        _ => None,
    }
}

fn euc_jp_length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [0x8E, 0xA1..=0xDF, ..] | [0xA1..=0xFE, 0xA1..=0xFE, ..] => Some(2),
        [0x8F, 0xA1..=0xFE, 0xA1..=0xFE, ..] => Some(3),
        _ => None,
    }
}

fn euckr_length(bytes: &[u8]) -> Option<usize> {
    matches!(bytes, [0x81..=0xFE, 0x41..=0x5A | 0x61..=0x7A | 0x81..=0xFE, ..]).then_some(2)
}

fn gb2312_length(bytes: &[u8]) -> Option<usize> {
    matches!(bytes, [0xA1..=0xF7, 0xA1..=0xFE, ..]).then_some(2)
}

fn gbk_length(bytes: &[u8]) -> Option<usize> {
    matches!(bytes, [0x81..=0xFE, 0x40..=0x7E | 0x80..=0xFE, ..]).then_some(2)
}

fn gb18030_length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [0x81..=0xFE, 0x40..=0x7E | 0x80..=0xFE, ..] => Some(2),
        [0x81..=0xFE, 0x30..=0x39, 0x81..=0xFE, 0x30..=0x39, ..] => Some(4),
        _ => None,
    }
}
