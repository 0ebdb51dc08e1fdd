//! The hash of a name in an indexed directory: half MD4 over unsigned bytes (kernel: fs/ext4/hash.c).

/// What the index says of it: `DX_HASH_HALF_MD4`; that bytes are unsigned is said by the superblock.
pub const HALF_MD4: u8 = 1;
/// The superblock's flag for it: EXT2_FLAGS_UNSIGNED_HASH.
pub const UNSIGNED: u32 = 2;
/// The largest value means the end of a directory.
const END: u32 = 0x7fff_ffff;

/// The hash of `name`; its lowest bit is 0, since the index marks with it what continues from the block before.
pub fn of(name: &[u8], seed: &[u32; 4]) -> u32 {
    // A seed of zeros means MD4's own.
    let mut state =
        if *seed == [0; 4] { [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476] } else { *seed };
    let mut rest = name;
    loop {
        transform(&mut state, &words(rest));
        match rest.get(32..) {
            Some(more) if !more.is_empty() => rest = more,
            _ => break,
        }
    }
    let hash = state[1] & !1;
    if hash == END << 1 { (END - 1) << 1 } else { hash }
}

/// The first 32 bytes as 8 words, filled up with the length of what is left.
fn words(name: &[u8]) -> [u32; 8] {
    let len = name.len() as u32;
    let mut pad = len | len << 8;
    pad |= pad << 16;
    let mut words = [pad; 8];
    for (word, bytes) in words.iter_mut().zip(name.chunks(4)) {
        for byte in bytes {
            *word = (*word << 8).wrapping_add(u32::from(*byte));
        }
    }
    words
}

const K2: u32 = 0x5a82_7999;
const K3: u32 = 0x6ed9_eba1;

fn transform(state: &mut [u32; 4], words: &[u32; 8]) {
    let f = |x: u32, y: u32, z: u32| z ^ (x & (y ^ z));
    let g = |x: u32, y: u32, z: u32| (x & y).wrapping_add((x ^ y) & z);
    let h = |x: u32, y: u32, z: u32| x ^ y ^ z;
    let mut s = *state;
    let mut round = |mix: &dyn Fn(u32, u32, u32) -> u32, order: [usize; 8], k: u32, shifts: [u32; 4]| {
        for (i, word) in order.into_iter().enumerate() {
            // a, d, c, b take turns.
            let [a, b, c, d] = [(8 - i) % 4, (9 - i) % 4, (10 - i) % 4, (11 - i) % 4];
            let sum = s[a].wrapping_add(mix(s[b], s[c], s[d])).wrapping_add(words[word]).wrapping_add(k);
            s[a] = sum.rotate_left(shifts[i % 4]);
        }
    };
    round(&f, [0, 1, 2, 3, 4, 5, 6, 7], 0, [3, 7, 11, 19]);
    round(&g, [1, 3, 5, 7, 0, 2, 4, 6], K2, [3, 5, 9, 13]);
    round(&h, [3, 7, 2, 6, 1, 5, 0, 4], K3, [3, 9, 11, 15]);
    for (state, s) in state.iter_mut().zip(s) {
        *state = state.wrapping_add(s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hash_as_e2fsprogs_hashes_them() {
        let long = "x".repeat(100);
        // debugfs: dx_hash -h half_md4 [-s 01020304-0506-0708-090a-0b0c0d0e0f10] NAME
        let seed = [0x0403_0201, 0x0807_0605, 0x0c0b_0a09, 0x100f_0e0d];
        for (name, plain, seeded) in TABLE {
            let name = if *name == "LONG" { &long } else { *name };
            assert_eq!(of(name.as_bytes(), &[0; 4]), *plain, "{name}");
            assert_eq!(of(name.as_bytes(), &seed), *seeded, "{name}");
        }
    }

    const TABLE: &[(&str, u32, u32)] = &[
        ("a", 0xd5fa_7d7a, 0x8d08_ec4c),
        ("passwd", 0xeadd_3d7e, 0xbdfe_309a),
        ("some-file-name-of-more-than-thirty-two-bytes.conf", 0x7f7c_6d8a, 0x5687_298e),
        ("x23456789012345678901234567890123", 0xbd15_55f8, 0x0aad_e1f8),
        ("LONG", 0x23aa_98ac, 0xb094_6622),
    ];
}
