"""The people file: each bad line is named, and what is written is read again."""

import pytest

from dx_dagster.insights.people import people_file
from dx_dagster.insights.people.people_file import PeopleFileError, PersonLine

HEADER = b"email,name,team,time_zone,type\n"


def test_a_file_is_read_as_spreadsheets_write_it_and_written_as_it_is_read():
    saved = '\ufeffE-Mail,Name,Team path,TZ,human or bot\r\nAnn@X.example ,"Lee, Ann",Eng / Platform,europe/berlin,\r\n'
    saved += "\r\nci@x.example,,,,AI_agent\r\n"
    people = people_file.read(saved.encode())
    assert people == [
        PersonLine(2, "ann@x.example", "Lee, Ann", "Eng/Platform", "Europe/Berlin", None),
        PersonLine(4, "ci@x.example", None, None, None, "ai_bot"),
    ]
    again = people_file.read(people_file.write(people).encode())
    assert [person[1:] for person in again] == [person[1:] for person in people]
    assert people_file.read(b"email\nann@x.example\n") == [PersonLine(2, "ann@x.example")]


def test_every_bad_line_is_named():
    lines = b"""ann@x.example,Ann,Eng,Europe/Berlin,human
nobody,,,,
bob@x.example,Bob,Eng,Mars/Base,robot
cy@x.example,Cy,Eng//Web,,
ann@X.example,Ann again,,,
dee@x.example,Dee
eve@x.example,Eve,eng,,
f@@x.example,"two
lines",,,
"""
    with pytest.raises(PeopleFileError) as refused:
        people_file.read(HEADER + lines)
    assert refused.value.problems == [
        "line 3: 'nobody' is not an e-mail address",
        "line 4: 'Mars/Base' is not an IANA time zone such as Europe/Berlin",
        "line 4: type 'robot' must be human, bot or ai_bot",
        "line 5: team 'Eng//Web' has an empty part; write it as Engineering/Platform",
        "line 6: ann@x.example is in line 2 already",
        "line 7: has 2 columns instead of 5",
        "line 8: team 'eng' is written 'Eng' in line 2",
        "line 9: 'f@@x.example' is not an e-mail address",
        "line 9: name must be one line of at most 200 characters",
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (HEADER, "names no people"),
        (b"email;name\nann@x.example;Ann\n", "separated by semicolons"),
        (b"email\tname\nann@x.example\tAnn\n", "separated by tabs"),
        (HEADER + "ann@x.example,J\u00f6rg,,,\n".encode("latin-1"), "not UTF-8: line 2"),
        (HEADER.decode().encode("utf-16"), "not UTF-8: line 1"),
        (b"ann@x.example,Ann\n", "must name the columns"),
        (b"email,salary\nann@x.example,1\n", "'salary'"),
        (b"name,team\nAnn,Eng\n", "must name the columns"),
        (b"email,mail\na@x.example,a@x.example\n", "must name the columns"),
        (HEADER + b'ann@x.example,"Ann\n', "not CSV: line 2"),
        (b"\x00\xff\x00", "not UTF-8"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_what_it_is(content, says):
    with pytest.raises(PeopleFileError, match=says) as refused:
        people_file.read(content)
    assert not refused.value.problems
