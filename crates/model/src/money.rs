//! Money as an integer, so that sums are exact.

use std::iter::Sum;
use std::ops::Add;

/// US dollars in units of 10⁻¹² dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i128);

/// Units in one dollar.
const PER_DOLLAR: f64 = 1e12;

impl Money {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// From units of 10⁻¹² dollars.
    pub const fn from_pico_usd(units: i128) -> Self {
        Self(units)
    }

    /// From dollars as a provider reports them; `None` for what is no finite, non-negative amount.
    pub fn from_usd(dollars: f64) -> Option<Self> {
        (dollars.is_finite() && dollars >= 0.0).then(|| Self((dollars * PER_DOLLAR).round() as i128))
    }

    /// Units of 10⁻¹² dollars.
    pub const fn pico_usd(self) -> i128 {
        self.0
    }

    /// Dollars, for people and JSON.
    pub fn usd(self) -> f64 {
        self.0 as f64 / PER_DOLLAR
    }
}

impl Add for Money {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::Money;

    #[test]
    fn dollars_round_trip() {
        assert_eq!(Money::from_usd(0.0456).map(Money::usd), Some(0.0456));
        assert_eq!(Money::from_usd(f64::NAN), None);
        assert_eq!(Money::from_usd(-1.0), None);
        assert_eq!(
            [Money::from_pico_usd(1), Money::from_pico_usd(2)].into_iter().sum::<Money>().pico_usd(),
            3
        );
    }
}
