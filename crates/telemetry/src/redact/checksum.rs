//! Check digits: what tells a card, an account or a national id from any other number. Digits come as values 0 to 9.

/// ISO/IEC 7812: the sum with every second digit from the right doubled is a multiple of 10.
pub(super) fn luhn(digits: &[u8]) -> bool {
    let doubled = |digit: u32| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| if at % 2 == 1 { doubled(u32::from(*digit)) } else { u32::from(*digit) })
        .sum();
    sum.is_multiple_of(10)
}

/// ISO 13616: country, check digits and account; letters and digits alone, upper case. Its length must be its country's.
pub(super) fn iban(text: &[u8]) -> bool {
    let Some((head, account)) = text.split_at_checked(4) else { return false };
    let mut rest = 0u32;
    for byte in account.iter().chain(head) {
        rest = match byte {
            b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
            b'A'..=b'Z' => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
            _ => return false,
        };
    }
    rest == 1
}

/// The length of a country's IBANs (the registry of ISO 13616).
pub(super) fn iban_length(country: &[u8]) -> Option<usize> {
    const LENGTHS: &[(usize, &str)] = &[
        (15, "NO"),
        (16, "BE"),
        (18, "DK FI FO GL NL SD FK"),
        (19, "MK SI"),
        (20, "AT BA EE KZ LT LU XK MN"),
        (21, "CH HR LI LV"),
        (22, "BG BH CR DE GB GE IE ME RS VA"),
        (23, "AE GI IL IQ OM SO TL"),
        (24, "AD CZ ES MD PK RO SA SE SK TN VG DZ"),
        (25, "LY PT ST"),
        (26, "IS TR"),
        (27, "BI DJ FR GR IT MC MR SM"),
        (28, "AL AZ BY CY DO GT HU LB NI PL SV HN"),
        (29, "BR EG PS QA UA"),
        (30, "JO KW MU YE"),
        (31, "MT SC"),
        (32, "LC"),
        (33, "RU"),
    ];
    let country = std::str::from_utf8(country).ok()?;
    LENGTHS
        .iter()
        .find(|(_, countries)| countries.split(' ').any(|one| one == country))
        .map(|(length, _)| *length)
}

/// US social security number: areas 000, 666 and 900 to 999, group 00 and serial 0000 are never given out.
pub(super) fn us_ssn(digits: &[u8]) -> bool {
    let area = number(digits.get(..3).unwrap_or_default());
    digits.len() == 9
        && area != 0
        && area != 666
        && area < 900
        && number(digits.get(3..5).unwrap_or_default()) != 0
        && number(digits.get(5..).unwrap_or_default()) != 0
}

/// UK national insurance number: the two letters of its prefix.
pub(super) fn uk_nino(prefix: &[u8]) -> bool {
    const NEVER: [&[u8]; 7] = [b"BG", b"GB", b"NK", b"KN", b"TN", b"NT", b"ZZ"];
    let [first, second] = prefix else { return false };
    !b"DFIQUV".contains(first) && !b"DFIOQUV".contains(second) && !NEVER.contains(&prefix)
}

/// German tax id: among the first ten digits exactly one stands two or three times; ISO 7064 MOD 11,10.
pub(super) fn de_tax_id(digits: &[u8]) -> bool {
    let Some((check, ten)) =
        digits.split_last().filter(|(_, ten)| ten.len() == 10 && ten.first() != Some(&0))
    else {
        return false;
    };
    let mut times = [0u8; 10];
    for digit in ten {
        if let Some(times) = times.get_mut(usize::from(*digit)) {
            *times += 1;
        }
    }
    let repeated: Vec<u8> = times.into_iter().filter(|times| *times > 1).collect();
    if !matches!(repeated.as_slice(), [2 | 3]) {
        return false;
    }
    let mut product = 10;
    for digit in ten {
        let sum = (u32::from(*digit) + product) % 10;
        product = (if sum == 0 { 10 } else { sum } * 2) % 11;
    }
    (11 - product) % 10 == u32::from(*check)
}

/// French INSEE number (NIR) with its key: 15 digits, Corsica's 2A and 2B given as 19 and 18.
pub(super) fn fr_insee(digits: &[u8]) -> bool {
    if digits.len() != 15 || !matches!(digits.first(), Some(1..=4 | 7 | 8)) {
        return false;
    }
    let month = number(digits.get(3..5).unwrap_or_default());
    let body = number(digits.get(..13).unwrap_or_default());
    matches!(month, 1..=12 | 20..=42 | 50..=99)
        && 97 - body % 97 == number(digits.get(13..).unwrap_or_default())
}

/// Spanish DNI (eight digits) and NIE (X, Y or Z as 0, 1 or 2 before seven): the letter that must follow.
pub(super) fn es_letter(digits: &[u8]) -> Option<u8> {
    let at = usize::try_from(number(digits) % 23).ok()?;
    b"TRWAGMYFPDXBNJZSQVHLCKE".get(at).copied()
}

/// Italian codice fiscale: 16 characters, the last being computed.
pub(super) fn it_fiscal_code(text: &[u8]) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let Some((check, body)) = text.split_last().filter(|(_, body)| body.len() == 15) else { return false };
    let value =
        |byte: &u8| u32::from(if byte.is_ascii_digit() { byte - b'0' } else { byte.wrapping_sub(b'A') });
    let mut sum = 0;
    for (at, byte) in body.iter().enumerate() {
        let value = value(byte);
        // Positions count from 1: the first is odd.
        sum += if at % 2 == 0 { ODD.get(value as usize).copied().unwrap_or(0) } else { value };
    }
    u32::from(check.wrapping_sub(b'A')) == sum % 26
}

/// Brazilian CPF: two check digits over 11; eleven times the same digit is none.
pub(super) fn br_cpf(digits: &[u8]) -> bool {
    let check = |length: usize| {
        let sum: usize = digits
            .iter()
            .take(length)
            .enumerate()
            .map(|(at, digit)| usize::from(*digit) * (length + 1 - at))
            .sum();
        let check = (sum * 10 % 11) % 10;
        digits.get(length).is_some_and(|digit| usize::from(*digit) == check)
    };
    digits.len() == 11 && digits.windows(2).any(|pair| pair.first() != pair.last()) && check(9) && check(10)
}

/// Indian Aadhaar: twelve digits, the first 2 or more, Verhoeff's check.
pub(super) fn in_aadhaar(digits: &[u8]) -> bool {
    digits.len() == 12 && digits.first().is_some_and(|first| *first > 1) && verhoeff(digits)
}

/// Verhoeff's check: multiplication in the dihedral group of order 10, with a permutation per position.
fn verhoeff(digits: &[u8]) -> bool {
    const PERMUTATION: [u8; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    // Digits 0 to 4 are rotations, 5 to 9 reflections.
    let multiply = |a: u8, b: u8| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => 5 + (a + b) % 5,
        (false, true) => 5 + (a - 5 + 5 - b) % 5,
        (false, false) => (a + 5 - b) % 5,
    };
    let mut check = 0;
    for (at, digit) in digits.iter().rev().enumerate() {
        let mut digit = *digit;
        for _ in 0..at % 8 {
            digit = PERMUTATION.get(usize::from(digit)).copied().unwrap_or(0);
        }
        check = multiply(check, digit);
    }
    check == 0
}

fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |number, digit| number * 10 + u64::from(*digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(text: &str) -> Vec<u8> {
        text.bytes().filter(u8::is_ascii_digit).map(|byte| byte - b'0').collect()
    }

    /// Each number is right, and wrong with its last digit changed.
    fn only_this(check: fn(&[u8]) -> bool, right: &str) {
        let mut digits = digits(right);
        assert!(check(&digits), "{right}");
        for _ in 0..9 {
            let last = digits.last_mut().expect("digits");
            *last = (*last + 1) % 10;
            assert!(!check(&digits), "{right} with {digits:?}");
        }
    }

    #[test]
    fn published_examples_check() {
        for card in ["4111 1111 1111 1111", "378282246310005", "5555555555554444", "6011000990139424"] {
            only_this(luhn, card);
        }
        for tax_id in ["86095742719", "47036892816", "65929970489"] {
            only_this(de_tax_id, tax_id);
        }
        only_this(fr_insee, "2 55 08 14 168 025 38");
        only_this(br_cpf, "529.982.247-25");
        only_this(in_aadhaar, "2341 2341 2346");
        assert_eq!(es_letter(&digits("12345678")), Some(b'Z'));
        assert_eq!(es_letter(&digits("01234567")), Some(b'L'), "the NIE X1234567L");
        assert!(it_fiscal_code(b"MRTMTT91D08F205J") && !it_fiscal_code(b"MRTMTT91D08F205K"));
        assert!(iban(b"DE89370400440532013000") && !iban(b"DE89370400440532013001"));
        assert!(iban(b"GB82WEST12345698765432") && iban_length(b"GB") == Some(22));
        assert!(us_ssn(&digits("123-45-6789")));
        for never in ["000-12-3456", "666-12-3456", "900-12-3456", "123-00-6789", "123-45-0000"] {
            assert!(!us_ssn(&digits(never)), "{never}");
        }
        assert!(uk_nino(b"AB") && !uk_nino(b"GB") && !uk_nino(b"DA"));
        assert!(!br_cpf(&digits("111.111.111-11")));
        assert!(!in_aadhaar(&digits("0341 2341 2346")));
    }
}
