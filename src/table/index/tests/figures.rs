//! How small an index is.

use super::*;

/// A key of bytes as a random BINARY(16) column has them: zeros escaped, and closed by two.
fn uuid(n: u64) -> RecordKey {
    let half = |n: u64| Mix { seed: 1 }.mix(n).to_be_bytes();
    let mut key = Vec::new();
    for byte in [half(2 * n), half(2 * n + 1)].concat() {
        key.push(byte);
        key.extend((byte == 0).then_some(0xFF));
    }
    key.extend([0, 0]);
    RecordKey::Bytes(key.into())
}

/// Puts keys one after another, and looks at the size at each of `sizes` and at steps up to a growth behind it.
fn most_bytes_a_key(key: impl Fn(u64) -> RecordKey, sizes: &[u64]) -> f64 {
    let mut index = in_memory();
    let (mut most, mut n) = (0.0_f64, 0);
    for size in sizes {
        for target in (0..10).map(|step| size + size * step / 60) {
            while n < target {
                index.put(key(n).as_ref(), address(n as u32));
                n += 1;
            }
            most = most.max(index.bytes_in_memory() as f64 / n as f64);
        }
    }
    most
}

#[test]
fn an_integer_key_takes_at_most_16_bytes_at_every_size() {
    let sizes = [100_000, 130_000, 400_000];
    for (factor, sizes) in [(1, &sizes[..]), (1 << 32, &sizes[..1])] {
        let most = most_bytes_a_key(|n| RecordKey::Int((n * factor) as i64), sizes);
        assert!(most <= 16.0, "{most} bytes a key, of multiples of {factor}");
    }
}

#[test]
fn a_key_of_16_bytes_takes_at_most_32() {
    let sizes = [100_000, 130_000, 170_000];
    let most = most_bytes_a_key(uuid, &sizes);
    assert!(most <= 32.0, "{most} bytes a key");
    let most = most_bytes_a_key(|n| key(n as i64, true), &sizes[..1]);
    assert!(most <= 32.0, "{most} bytes a composite key");
}

#[test]
fn keys_that_come_and_go_leave_little_behind() {
    for bytes in [false, true] {
        let mut index = in_memory();
        for n in 0..200_000_i64 {
            index.put(key(n, bytes).as_ref(), address(n as u32));
            if n >= 100_000 {
                index.delete(&key(n - 100_000, bytes), Order::MIN, |_| false);
            }
        }
        let each = index.bytes_in_memory() as f64 / index.len() as f64;
        let most = if bytes { 36.0 } else { 16.0 };
        assert!(each <= most, "{each} bytes a key that stays");
        let before = index.bytes_in_memory();
        index.drop_rows(|address| address.file != 3);
        let kept = index.bytes_in_memory();
        assert!(kept < before / 5, "{kept} bytes for a seventh of what took {before}");
        for n in 100_000..200_000_i64 {
            index.delete(&key(n, bytes), Order::MIN, |_| false);
        }
        assert!(index.is_empty());
        assert!(index.bytes_in_memory() < 200_000, "{} bytes for nothing", index.bytes_in_memory());
    }
}
