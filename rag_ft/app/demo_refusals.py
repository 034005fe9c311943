"""What is wrong with a file, in the language of the demo page. The English sentences are made where files are read."""

from __future__ import annotations

import re

from rag_ft.app.demo_words import PageLanguage

_KINDS = {
    "a PDF file": "PDF 파일",
    "a zip file (such as .docx)": "zip 파일(.docx 등)",
    "a picture": "그림 파일",
    "an old Office file": "이전 형식의 Office 파일",
    "a gzip file": "gzip 파일",
    "a program": "실행 파일",
}
_OCR = {
    "ocr is off": "문자 인식(OCR)이 꺼져 있음",
    "tesseract is not installed": "tesseract가 설치되어 있지 않음",
    "tesseract has no language": "tesseract에 없는 언어:",
    "tesseract failed": "tesseract 오류",
}
_KOREAN = {
    r"has no text": "텍스트가 없습니다.",
    r"is empty": "빈 파일입니다.",
    r"is no text": "텍스트 파일이 아닙니다.",
    r"needs a password: save it without one": "암호가 걸려 있습니다. 암호 없이 저장해 주세요.",
    r"is no PDF that can be read: .*": "읽을 수 있는 PDF가 아닙니다. 손상되었거나 잘렸거나 다른 형식입니다.",
    r"cannot be opened: check its permissions": "열 수 없습니다.",
    r"is nested too deep to be read": "구조가 너무 깊어 읽을 수 없습니다.",
    r"([\d,]+) of its pages could not be read": "{0}개 쪽을 읽지 못했습니다.",
    r"([\d,]+) of its pages are pictures and were not read: (.*)": "{0}개 쪽은 그림이어서 읽지 못했습니다({1}).",
    r"is (.*), whatever its name says: rename it to end in (\.\w+)": "이름과 달리 {0}입니다. 확장자를 {1}로 바꾸세요.",
    r"is (.*), whatever its name says: save it as .*": (
        "이름과 달리 {0}입니다. PDF, 텍스트, Markdown 또는 HTML로 저장해 주세요."
    ),
    r"has ([\d,]+) pages, more than max_pages=(\d+)": "{0}쪽입니다. 최대 {1}쪽까지 읽습니다.",
    r"gives ([\d,]+) passages, more than max_passages=(\d+)": "문단이 {0}개입니다. 최대 {1}개까지 읽습니다.",
    r"has ([\d,]+) MB, more than max_megabytes=(\d+)": "{0}MB입니다. 최대 {1}MB까지 읽습니다.",
    r"takes longer than (\d+) minutes to read": "읽는 데 {0}분이 넘게 걸려 중단했습니다.",
    r"takes longer than (\d+) seconds for page (\d+)": "{1}쪽을 읽는 데 {0}초가 넘게 걸려 중단했습니다.",
    r"takes longer than (\d+) seconds to read": "읽는 데 {0}초가 넘게 걸려 중단했습니다.",
    r"needs more than ([\d,]+) MB of memory": "읽는 데 메모리가 {0}MB 넘게 필요합니다.",
    r"cannot be read: reading it broke off after (\d+) seconds": "{0}초 뒤에 읽기가 중단되었습니다.",
    r"cannot be read: the process that reads files does not start": "파일을 읽는 프로세스가 시작되지 않습니다.",
    r"cannot be read \((\w+)\)": "읽을 수 없습니다({0}).",
}


def in_words(language: PageLanguage, problem: str) -> str:
    """Return a problem of a file, as rag_ft/app/reader.py and reading.py tell it, in a language of the page.

    One that is not known here stays as it is: better in another language than not at all.
    """
    for pattern, korean in _KOREAN.items() if language == "ko" else ():
        if found := re.fullmatch(pattern, problem, re.DOTALL):
            return korean.format(*map(_part, found.groups()))
    return problem


def _part(text: str) -> str:
    for english, korean in (_KINDS | _OCR).items():
        text = text.replace(english, korean)
    return text
