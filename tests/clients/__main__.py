"""Runs the client tests: `python tests/clients [MODULE[.CLASS[.METHOD]]]...`.

Prints what Rust's test harness prints, line for line, so that one reader counts both:
`test NAME ... ok`, `... FAILED` or `... ignored, REASON`, and a `test result:` line at the end.
"""

import os
import sys
import time
import unittest

# The tests leave nothing behind in the source tree.
sys.dont_write_bytecode = True

HERE = os.path.dirname(os.path.abspath(__file__))


class Result(unittest.TestResult):
    """Prints each test as it ends, and the failures' tracebacks as they happen."""

    def __init__(self):
        super().__init__()
        self.passed = self.failed = self.ignored = 0

    def startTest(self, test):
        super().startTest(test)
        self.ending = None

    def stopTest(self, test):
        if self.ending is None:
            self.passed += 1
            print(f"test {test.id()} ... ok", flush=True)
        super().stopTest(test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._fail(test, err)

    def addError(self, test, err):
        super().addError(test, err)
        self._fail(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._fail(subtest, err)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self._fail(test, None)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.ending = "ignored"
        self.ignored += 1
        print(f"test {test.id()} ... ignored, {reason}", flush=True)

    def _fail(self, test, err):
        # A test with several failed parts is one failed test.
        if getattr(self, "ending", None) != "failed" or not hasattr(test, "test_case"):
            self.failed += 1
        self.ending = "failed"
        print(f"test {test.id()} ... FAILED", flush=True)
        if err is not None:
            print(self._exc_info_to_string(err, test), flush=True)


def main():
    sys.path.insert(0, HERE)
    names = sys.argv[1:] or sorted(
        file[:-3] for file in os.listdir(HERE) if file.startswith("test_") and file.endswith(".py")
    )
    tests = unittest.defaultTestLoader.loadTestsFromNames(names)
    print(f"\nrunning {tests.countTestCases()} tests")
    start = time.monotonic()
    result = Result()
    tests.run(result)
    good = result.failed == 0
    print(
        f"\ntest result: {'ok' if good else 'FAILED'}. {result.passed} passed; {result.failed} failed; "
        f"{result.ignored} ignored; 0 measured; 0 filtered out; finished in {time.monotonic() - start:.2f}s"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
