//! Instruction sets: which the kernels are written for, which this machine has.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

/// An instruction set that the kernels are written for. Every operation gives it as its first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust: runs everywhere, and is what the others are compared to.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C (2013 on).
    Avx2,
    /// The same with AVX-VNNI (2021 on).
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, VL, DQ and VNNI (2019 on).
    Avx512Vnni,
    /// The same with GFNI and the int8 matrix unit AMX (2023 on), where the system lets a process use it.
    AmxInt8,
    /// AArch64 with the dot-product instructions (Armv8.2 on).
    NeonDot,
    /// The same with the int8 matrix instructions (Armv8.6 on).
    NeonI8mm,
}

/// A name that is no [`Isa`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown instruction set `{0}`; known are scalar, avx2, avxvnni, avx512vnni, amxint8, neondot and neoni8mm"
)]
pub struct UnknownIsa(String);

impl Isa {
    /// All instruction sets, slowest first.
    pub const ALL: [Self; 7] = [
        Self::Scalar,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512Vnni,
        Self::AmxInt8,
        Self::NeonDot,
        Self::NeonI8mm,
    ];

    /// The best that this machine has.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::Scalar)
    }

    /// Those that this machine has, slowest first; never empty.
    pub fn available() -> impl DoubleEndedIterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// Whether this machine has it. Cheap: the answer is kept.
    #[must_use]
    #[inline]
    pub fn is_available(self) -> bool {
        const KNOWN: u8 = 1 << 7;
        static FOUND: AtomicU8 = AtomicU8::new(0);
        let mut found = FOUND.load(Ordering::Relaxed);
        if found == 0 {
            found = Self::ALL
                .into_iter()
                .filter(|isa| isa.probe())
                .fold(KNOWN, |bits, isa| bits | isa.bit());
            FOUND.store(found, Ordering::Relaxed);
        }
        found & self.bit() != 0
    }

    /// Features of the processor that it needs, by the names of the compiler, and whether this machine has each. None for instruction
    /// sets of another architecture, and for [`Isa::Scalar`].
    pub fn features(self) -> impl Iterator<Item = (&'static str, bool)> {
        let mut found = [None; 11];
        macro_rules! ask {
            ($probe:ident: $($name:tt)*) => {
                for (found, feature) in found.iter_mut().zip([$(($name, std::arch::$probe!($name))),*]) {
                    *found = Some(feature);
                }
            };
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => ask!(is_x86_feature_detected: "avx2" "fma" "f16c"),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => ask!(is_x86_feature_detected: "avx2" "fma" "f16c" "avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => ask!(is_x86_feature_detected:
                "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512vl" "avx512dq" "avx512vnni"),
            #[cfg(target_arch = "x86_64")]
            Self::AmxInt8 => {
                ask!(is_x86_feature_detected:
                    "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512vl" "avx512dq" "avx512vnni" "gfni");
                let [.., tile, int8] = &mut found;
                let features = crate::avx512::amx::features().map(Some);
                [*tile, *int8] = features;
            }
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => ask!(is_aarch64_feature_detected: "dotprod"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm => ask!(is_aarch64_feature_detected: "dotprod" "i8mm"),
            _ => {}
        }
        found.into_iter().flatten()
    }

    /// Whether it belongs to the architecture that the program was built for.
    #[must_use]
    pub fn of_this_architecture(self) -> bool {
        match self {
            Self::Scalar => true,
            Self::Avx2 | Self::AvxVnni | Self::Avx512Vnni | Self::AmxInt8 => {
                cfg!(target_arch = "x86_64")
            }
            Self::NeonDot | Self::NeonI8mm => cfg!(target_arch = "aarch64"),
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Scalar => 1,
            Self::Avx2 => 2,
            Self::Avx512Vnni => 4,
            Self::NeonDot => 8,
            Self::NeonI8mm => 16,
            Self::AmxInt8 => 32,
            Self::AvxVnni => 64,
        }
    }

    /// Asks the processor.
    fn probe(self) -> bool {
        self.of_this_architecture() && self.features().all(|(_, has)| has)
    }

    /// The guard of every dispatch: running instructions that the machine lacks is undefined behaviour.
    #[inline]
    pub(crate) fn require(self) {
        assert!(self.is_available(), "this machine has no {self}");
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512Vnni => "avx512vnni",
            Self::AmxInt8 => "amxint8",
            Self::NeonDot => "neondot",
            Self::NeonI8mm => "neoni8mm",
        })
    }
}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Self, UnknownIsa> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.to_string() == name)
            .ok_or_else(|| UnknownIsa(name.to_owned()))
    }
}

/// Calls `module::function` of the kernels for `isa`, after checking that the machine has it.
macro_rules! dispatch {
    ($isa:expr, $module:ident :: $function:ident ( $($arg:expr),* $(,)? )) => {{
        let isa: $crate::isa::Isa = $isa;
        isa.require();
        match isa {
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "the caller must know that the machine has the features")]
            $crate::isa::Isa::AmxInt8 => {
                // SAFETY: as below.
                unsafe { $crate::avx512::amx::$module::$function($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "the caller must know that the machine has the features")]
            $crate::isa::Isa::Avx512Vnni => {
                // SAFETY: `require` has checked the features that this kernel is compiled with.
                unsafe { $crate::avx512::$module::$function($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "the caller must know that the machine has the features")]
            $crate::isa::Isa::AvxVnni => {
                // SAFETY: as above.
                unsafe { $crate::avx2::vnni::$module::$function($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "the caller must know that the machine has the features")]
            $crate::isa::Isa::Avx2 => {
                // SAFETY: as above.
                unsafe { $crate::avx2::$module::$function($($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[expect(unsafe_code, reason = "the caller must know that the machine has the features")]
            $crate::isa::Isa::NeonDot => {
                // SAFETY: as above.
                unsafe { $crate::neon::$module::$function($($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[expect(unsafe_code, reason = "the caller must know that the machine has the features")]
            $crate::isa::Isa::NeonI8mm => {
                // SAFETY: as above.
                unsafe { $crate::neon::i8mm::$module::$function($($arg),*) }
            }
            _ => $crate::scalar::$module::$function($($arg),*),
        }
    }};
}
pub(crate) use dispatch;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
        assert!("sse9".parse::<Isa>().is_err());
    }

    #[test]
    fn available_are_those_whose_features_are_there() {
        for isa in Isa::ALL {
            let missing = isa.features().any(|(_, has)| !has);
            assert_eq!(
                isa.is_available(),
                isa.of_this_architecture() && !missing,
                "{isa}"
            );
        }
    }

    #[test]
    fn the_best_is_available() {
        assert!(Isa::Scalar.is_available());
        assert!(Isa::detect().is_available());
        assert_eq!(Isa::available().next(), Some(Isa::Scalar));
    }
}
