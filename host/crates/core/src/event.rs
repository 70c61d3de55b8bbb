//! Lambda's JSON event for a batch of Kinesis records: its exact text, and how long it will be.
//!
//! Rules: Lambda developer guide, "Process Amazon Kinesis Data Streams records with Lambda";
//! member order as recorded from AWS.
