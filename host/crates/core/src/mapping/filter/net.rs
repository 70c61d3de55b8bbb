//! Networks: which addresses are within `10.0.0.0/24` or `2001:db8::/32`.
//!
//! Bits of the address behind the mask are ignored. The two families are apart: an IPv4 address
//! within IPv6's notation belongs to IPv6 networks only.

use std::net::IpAddr;

/// An address and how many of its first bits count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network {
    address: IpAddr,
    mask_bits: u32,
}

impl Network {
    /// # Errors
    /// Why the text is not a network.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (address, mask_bits) = text
            .split_once('/')
            .filter(|(_, bits)| !bits.contains('/'))
            .ok_or_else(|| format!("malformed CIDR \"{text}\", one '/' required"))?;
        let address: IpAddr = address
            .parse()
            .map_err(|_| format!("nonstandard IP address: {address}"))?;
        let most = width(address);
        let is_number = !mask_bits.is_empty() && mask_bits.bytes().all(|b| b.is_ascii_digit());
        match mask_bits.parse() {
            Ok(mask_bits) if is_number && mask_bits <= most => Ok(Self { address, mask_bits }),
            _ => Err(format!(
                "malformed CIDR \"{text}\", mask bits must be 0 to {most}"
            )),
        }
    }

    /// Whether a text is an address in the network.
    pub(super) fn contains(&self, text: &str) -> bool {
        let Ok(address) = text.parse::<IpAddr>() else {
            return false;
        };
        let ignored = width(self.address) - self.mask_bits;
        let network = |address| number(address).checked_shr(ignored).unwrap_or(0);
        address.is_ipv4() == self.address.is_ipv4() && network(address) == network(self.address)
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_behind_its_mask() {
        let cases = [
            ("10.0.0.0/24", "10.0.0.255", true),
            ("10.0.0.0/24", "10.0.1.0", false),
            ("10.0.0.77/24", "10.0.0.1", true),
            ("10.0.0.1/32", "10.0.0.1", true),
            ("10.0.0.1/32", "10.0.0.2", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "10.0.0.1", false),
            ("2001:db8::/32", "2001:0db8:ffff::", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("2001:db8::1/128", "2001:db8:0:0::1", true),
            ("10.0.0.0/24", "10.0.0", false),
            ("10.0.0.0/24", "010.0.0.1", false),
            ("10.0.0.0/24", "10.0.0.1 ", false),
            ("10.0.0.0/24", "a host", false),
        ];
        for (network, address, wanted) in cases {
            let found = Network::parse(network).unwrap().contains(address);
            assert_eq!(found, wanted, "{address} in {network}");
        }
    }

    #[test]
    fn a_wrong_network_says_why() {
        for (network, why) in [
            ("10.0.0.0", "one '/' required"),
            ("10.0.0.0/8/8", "one '/' required"),
            ("10.0.0/8", "nonstandard IP address: 10.0.0"),
            ("10.0.0.0/33", "0 to 32"),
            ("::/129", "0 to 128"),
            ("10.0.0.0/+8", "0 to 32"),
            ("10.0.0.0/", "0 to 32"),
        ] {
            let found = Network::parse(network).unwrap_err();
            assert!(found.contains(why), "{network}: {found}");
        }
    }
}
