//! Which of a CPU's instructions the engines use.
//!
//! All paths give the same bits; `DISRUST_SIMD` forces one, so that one machine can test all that it has.
#![forbid(unsafe_code)]

/// A path through the engines, by what it asks of the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Simd {
    /// No more than every CPU has.
    Portable,
    /// x86-64 with AVX2 and POPCNT.
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL, DQ and VBMI: Intel from Ice Lake on, AMD from Zen 4 on.
    Avx512,
}

impl Simd {
    const ALL: [Simd; 3] = [Simd::Portable, Simd::Avx2, Simd::Avx512];

    /// The best path that this CPU has.
    pub fn detect() -> Simd {
        Simd::available().last().expect("every CPU has the portable path")
    }

    /// The paths that this CPU has, the best one last.
    pub fn available() -> impl Iterator<Item = Simd> {
        Simd::ALL.into_iter().filter(|simd| simd.is_available())
    }

    /// The path that `DISRUST_SIMD` asks for, or the best one.
    ///
    /// # Errors
    /// If it asks for one that is unknown, or that this CPU has not.
    pub fn from_env() -> Result<Simd, String> {
        match std::env::var("DISRUST_SIMD") {
            Ok(name) => Simd::named(&name),
            Err(std::env::VarError::NotPresent) => Ok(Simd::detect()),
            Err(error) => Err(format!("DISRUST_SIMD: {error}")),
        }
    }

    fn named(name: &str) -> Result<Simd, String> {
        let Some(simd) = Simd::ALL.into_iter().find(|simd| simd.name() == name) else {
            return Err(format!("DISRUST_SIMD={name}: it is one of avx512, avx2, portable"));
        };
        if !simd.is_available() {
            let best = Simd::detect().name();
            return Err(format!("DISRUST_SIMD={name}: this CPU has not what it takes; its best is {best}"));
        }
        Ok(simd)
    }

    /// As `DISRUST_SIMD` names it.
    pub fn name(self) -> &'static str {
        match self {
            Simd::Portable => "portable",
            Simd::Avx2 => "avx2",
            Simd::Avx512 => "avx512",
        }
    }

    /// Whether this CPU has what the path asks for.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn is_available(self) -> bool {
        match self {
            Simd::Portable => true,
            Simd::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt"),
            Simd::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vbmi")
                    && Simd::Avx2.is_available()
            }
        }
    }

    /// Whether this CPU has what the path asks for.
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn is_available(self) -> bool {
        self == Simd::Portable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forced_path_is_known_and_there() {
        assert_eq!(Simd::named("portable"), Ok(Simd::Portable));
        let unknown = Simd::named("sse9");
        assert!(unknown.is_err_and(|error| error.contains("sse9") && error.contains("avx512, avx2, portable")));
        for simd in Simd::ALL {
            let available = Simd::available().any(|other| other == simd);
            assert_eq!(Simd::named(simd.name()).is_ok(), available, "{simd:?}");
        }
        assert!(Simd::detect().is_available());
    }
}
