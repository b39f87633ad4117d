"""What tests of all kinds share: made-up commands and events, worlds to put them into, and rules to check them by."""
