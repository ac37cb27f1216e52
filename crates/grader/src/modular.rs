//! Arithmetic modulo a prime: exact equality of rational functions and of numbers of any length.
//!
//! Two rational functions with the same residue at pseudo-random points are the same one but for a chance of about
//! degree / 2^61 (Schwartz, <https://doi.org/10.1145/322217.322225>); two primes square that. So
//! 1/2004! and 1/2006!, or 2^2005 + 1 and 2^2005, are told apart where floats see 0 or infinity. The letters e and pi are taken as two
//! more variables: both are transcendental, and no answer hangs on a relation between them. The imaginary unit is a square
//! root of -1, which exists because the primes are 1 modulo 4.

use crate::eval::{Domain, Fail};
use crate::expr::{Const, Func};
use crate::number::Number;

/// Primes below 2^61 that are 1 modulo 4, each with a square root of -1. The test checks them.
const FIELDS: [(u64, u64); 2] = [
    (2_305_842_996_868_014_913, 358_619_620_598_398_300),
    (2_305_744_231_435_904_893, 770_764_851_994_844_010),
];

/// One prime and one point.
#[derive(Debug)]
pub(crate) struct Modular {
    prime: u64,
    imaginary: u64,
    point: u64,
}

impl Modular {
    /// Two points in each field, the fields in turn: the first two decide equality, all four that a ratio is constant.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..4).map(|point| {
            let (prime, imaginary) = FIELDS[point as usize % 2];
            Self {
                prime,
                imaginary,
                point,
            }
        })
    }

    fn times(&self, a: u64, b: u64) -> u64 {
        (u128::from(a) * u128::from(b) % u128::from(self.prime)) as u64
    }

    fn to_the(&self, mut base: u64, mut exponent: u64) -> u64 {
        let mut result = 1;
        while exponent > 0 {
            if exponent % 2 == 1 {
                result = self.times(result, base);
            }
            base = self.times(base, base);
            exponent /= 2;
        }
        result
    }

    fn residue(&self, name: &str) -> u64 {
        hash(name, self.point) % self.prime
    }
}

/// A fixed pseudo-random number for a name and a point: FNV-1a, then the finaliser of splitmix64.
pub(crate) fn hash(name: &str, point: u64) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64 ^ point.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in name.bytes() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

impl Domain for Modular {
    type Value = u64;

    fn number(&self, number: &Number) -> Result<u64, Fail> {
        let (digits, exponent) = number.parts();
        let value = digits.bytes().fold(0, |value, digit| {
            (self.times(value, 10) + u64::from(digit - b'0')) % self.prime
        });
        let scale = self.to_the(10, exponent.unsigned_abs().into());
        if exponent >= 0 {
            Ok(self.times(value, scale))
        } else {
            Ok(self.times(value, self.inv(&scale)?))
        }
    }
    fn int(&self, value: i64) -> Result<u64, Fail> {
        // The primes are below 2^61.
        Ok(value.rem_euclid(self.prime as i64) as u64)
    }
    fn constant(&self, constant: Const) -> Result<u64, Fail> {
        Ok(match constant {
            // Names that no parsed variable has.
            Const::Pi => self.residue("\\pi"),
            Const::E => self.residue("\\e"),
            Const::I => self.imaginary,
        })
    }
    fn variable(&self, name: &str) -> Result<u64, Fail> {
        Ok(self.residue(name))
    }
    fn apply(&self, name: &str, args: &[u64]) -> Result<u64, Fail> {
        // A function of its arguments that nothing else can be equal to.
        let value = args.iter().fold(hash(name, u64::MAX), |state, arg| {
            hash(name, state ^ arg.rotate_left(17))
        });
        Ok(value % self.prime)
    }
    fn add(&self, a: &u64, b: &u64) -> Result<u64, Fail> {
        Ok((a + b) % self.prime)
    }
    fn mul(&self, a: &u64, b: &u64) -> Result<u64, Fail> {
        Ok(self.times(*a, *b))
    }
    fn inv(&self, a: &u64) -> Result<u64, Fail> {
        if *a == 0 {
            return Err(Fail::Undefined);
        }
        Ok(self.to_the(*a, self.prime - 2))
    }
    fn powi(&self, a: &u64, exponent: i64) -> Result<u64, Fail> {
        if *a == 0 && exponent <= 0 {
            return Err(Fail::Undefined);
        }
        let power = self.to_the(*a, exponent.unsigned_abs());
        if exponent < 0 {
            self.inv(&power)
        } else {
            Ok(power)
        }
    }
    fn root(&self, _: &u64, _: u32) -> Result<u64, Fail> {
        Err(Fail::Unsupported)
    }
    fn pow(&self, _: &u64, _: &u64) -> Result<u64, Fail> {
        Err(Fail::Unsupported)
    }
    fn abs(&self, _: &u64) -> Result<u64, Fail> {
        Err(Fail::Unsupported)
    }
    fn floor(&self, _: &u64) -> Result<u64, Fail> {
        Err(Fail::Unsupported)
    }
    fn call(&self, _: Func, _: &u64) -> Result<u64, Fail> {
        Err(Fail::Unsupported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_what_they_say() {
        for (prime, imaginary) in FIELDS {
            assert_eq!(prime % 4, 1);
            let field = Modular {
                prime,
                imaginary,
                point: 0,
            };
            assert_eq!(field.times(imaginary, imaginary), prime - 1);
            // Miller-Rabin with the first twelve primes is proof below 3.3e24.
            let (shift, odd) = (
                (prime - 1).trailing_zeros(),
                (prime - 1) >> (prime - 1).trailing_zeros(),
            );
            for base in [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37] {
                let mut x = field.to_the(base, odd);
                let mut passes = x == 1;
                for _ in 0..shift {
                    passes |= x == prime - 1;
                    x = field.times(x, x);
                }
                assert!(passes, "{prime} is not prime");
            }
        }
    }

    #[test]
    fn inverse_and_decimal() {
        for field in Modular::all() {
            let third = field.inv(&3).expect("3 is not zero");
            assert_eq!(field.times(third, 3), 1);
            let half = field
                .number(&Number::new("0", "5", 0).expect("a number"))
                .expect("a residue");
            assert_eq!(field.times(half, 2), 1);
            assert_eq!(field.inv(&0), Err(Fail::Undefined));
        }
    }
}
