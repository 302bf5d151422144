//! Ids, tokens and epochs are printed and read the same way, and nothing else is read.

use longshore_protocol::{ChunkId, Digest, Epoch, JobId, NodeId, Token};
use proptest::prelude::*;
use uuid::Uuid;

#[test]
fn a_job_id_is_a_uuid_with_hyphens() {
    let id = JobId::from_uuid(Uuid::from_u128(0x01890a5d_ac96_774b_bcce_b302099a8057));
    assert_eq!(id.to_string(), "01890a5d-ac96-774b-bcce-b302099a8057");
    assert_eq!("01890A5D-AC96-774B-BCCE-B302099A8057".parse(), Ok(id));
    assert_eq!(serde_json::to_string(&id).ok(), Some(format!("\"{id}\"")));
    for bad in
        ["", "7", "01890a5d-ac96-774b-bcce-b302099a805", "01890a5d-ac96-774b-bcce-b302099a805g"]
    {
        assert!(bad.parse::<JobId>().is_err(), "{bad}");
    }
}

#[test]
fn a_token_is_32_hex_digits() {
    let token = Token::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
    assert_eq!(token.to_string(), "000102030405060708090a0b0c0d0eff");
    assert_eq!("000102030405060708090A0B0C0D0EFF".parse(), Ok(token));
    let bad = [
        "",
        "000102030405060708090a0b0c0d0ef",
        "000102030405060708090a0b0c0d0eff0",
        "+00102030405060708090a0b0c0d0eff",
        "000102030405060708090a0b0c0d0e g",
        "ä0102030405060708090a0b0c0d0eff",
    ];
    for text in bad {
        assert!(text.parse::<Token>().is_err(), "{text}");
    }
}

#[test]
fn numbers_and_texts_are_written_plainly() {
    assert_eq!((ChunkId(7).to_string(), Epoch(2).to_string()), ("7".into(), "2".into()));
    assert_eq!(serde_json::to_string(&(ChunkId(7), Epoch(2))).ok().as_deref(), Some("[7,2]"));
    assert_eq!(serde_json::to_string(&NodeId::new("host-1")).ok().as_deref(), Some(r#""host-1""#));
    assert_eq!(Digest::new("ab").as_str(), "ab");
}

proptest! {
    #[test]
    fn ids_survive_the_way_there_and_back(number: u128) {
        let id = JobId::from_uuid(Uuid::from_u128(number));
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        let token = Token::from_bytes(number.to_be_bytes());
        prop_assert_eq!(token.to_string().parse(), Ok(token));
    }

    #[test]
    fn no_text_makes_a_reader_of_ids_panic(text in ".{0,40}") {
        let _ = text.parse::<JobId>();
        let _ = text.parse::<Token>();
    }
}
