//! Terms and receipts as sellers really write them.
