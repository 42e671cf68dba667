//! The protobuf wire format: tags, varints and length-delimited fields.

/// Why a protobuf body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct WireError(pub &'static str);

/// One field's value as it travels.
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    pub(super) fn varint(&self) -> Result<u64, WireError> {
        match self {
            Self::Varint(number) | Self::Fixed64(number) => Ok(*number),
            Self::Fixed32(number) => Ok(u64::from(*number)),
            Self::Bytes(_) => Err(WireError("a number was expected")),
        }
    }

    pub(super) fn double(&self) -> Result<f64, WireError> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(*bits)),
            Self::Fixed32(bits) => Ok(f64::from(f32::from_bits(*bits))),
            _ => Err(WireError("a double was expected")),
        }
    }

    pub(super) fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError("bytes were expected")),
        }
    }

    pub(super) fn text(&self) -> Result<String, WireError> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| WireError("text that is not UTF-8"))
    }
}

/// Walks over the fields of one message.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(WireError("it ends too early"))?;
        self.rest = rest;
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(WireError("a number is too long"))
    }

    /// The next number of a packed list.
    pub(super) fn bare_varint(&mut self) -> Result<Option<u64>, WireError> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    /// The next field's number and value.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError("a field number is too big"))?;
        let word = |bytes: &[u8]| bytes.try_into().map_err(|_| WireError("it ends too early"));
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(word(self.take(8)?)?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError("a length is too big"))?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Wire::Fixed32(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            _ => return Err(WireError("an unknown wire type")),
        };
        Ok(Some((number, wire)))
    }
}
