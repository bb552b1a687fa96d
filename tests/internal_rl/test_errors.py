"""What a program shows of an error, and its exit code."""

import pytest

from internal_rl.errors import UserError, one_line_errors


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UserError("x is 1; allowed: 2"), 2, "program: error: x is 1; allowed: 2\n"),
        (KeyboardInterrupt("saved at step 3"), 130, "program: saved at step 3\n"),
        (KeyboardInterrupt(), 130, "program: interrupted\n"),
    ],
)
def test_one_line_and_a_code(error, code, says, capsys):
    def run():
        raise error

    assert one_line_errors("program", run) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", says)


def test_other_errors_and_results_pass_through():
    assert one_line_errors("program", lambda: None) == 0
    assert one_line_errors("program", lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        one_line_errors("program", lambda: 1 // 0)
