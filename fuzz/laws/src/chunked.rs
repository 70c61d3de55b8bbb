//! Bodies in `aws-chunked` encoding, signatures not looked at. `length u16 │ body`

use shardmill::fuzzing::chunks;

use crate::input::Input;

/// Chunks are taken apart into no more bytes than there were, as many as were announced; a refusal
/// says why; and what was taken apart is taken apart again from one chunk.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let announced = usize::from(input.u16());
    let body = input.0;
    match chunks(body, None) {
        Ok(data) => {
            assert!(data.len() < body.len());
            let end = if data.is_empty() {
                ""
            } else {
                "0;chunk-signature=a\r\n\r\n"
            };
            let mut one = format!("{:x};chunk-signature=a\r\n", data.len()).into_bytes();
            one.extend_from_slice(&data);
            one.extend_from_slice(b"\r\n");
            one.extend_from_slice(end.as_bytes());
            assert_eq!(chunks(&one, Some(data.len())).as_deref(), Ok(&data[..]));
            assert_eq!(
                chunks(body, Some(announced)).is_ok(),
                announced == data.len()
            );
        }
        Err(error) => {
            assert!(
                error.starts_with("The body is not aws-chunked: "),
                "{error}"
            );
            assert!(chunks(body, Some(announced)).is_err());
        }
    }
}
