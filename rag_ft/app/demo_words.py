"""Every word of the demo page in English and in Korean. Knows nothing of the page."""

from __future__ import annotations

from typing import Literal, get_args

PageLanguage = Literal["en", "ko"]
LANGUAGES: tuple[PageLanguage, ...] = get_args(PageLanguage)

_ENGLISH = {
    "title": "Ask your documents",
    "lead": "Every answer comes with the passages the model was shown, what it quotes from them and how it judges "
    "each. Each question stands alone.",
    "page_language": "Language of this page",
    "upload": "Add documents",
    "documents": "Documents",
    "kinds": "PDF (scans too), text, Markdown or HTML, {megabytes} MB each at most. "
    "What you add is searched by you alone, and forgotten when you leave.",
    "start": "Add a document, then ask what it says.",
    "shared": "Open to everyone on this page",
    "one_passage": "1 passage",
    "passages": "{count} passages",
    "options": "How to answer",
    "compare": "Base model beside the tuned one",
    "route": "Try {few} passages first, all {passages} if they do not say (Self-Route)",
    "answer_language": "Language of answers",
    "as_asked": "as asked",
    "english": "English",
    "korean": "Korean",
    "departs": "Asking for a language adds a sentence to the prompt that the model was not tuned with.",
    "question": "Your question",
    "question_hint": "Ask something that your documents say. Enter sends.",
    "ask": "Ask",
    "stop": "Stop",
    "forget": "Delete my documents and questions",
    "forgotten": "Your documents and questions are deleted.",
    "reading": "Reading {name} ...",
    "read": "{name}: {passages}.",
    "searching": "Searching ...",
    "writing": "Writing ...",
    "done": "Done in {seconds} s.",
    "stopped": "Stopped.",
    "tuned": "Tuned",
    "base": "Base",
    "abstained": "The passages do not say.",
    "no_answer": "It wrote no answer.",
    "not_well_formed": "Its output does not have the form that was asked for.",
    "quotes": "What it quotes",
    "not_verbatim": "not word for word in that passage",
    "no_such_passage": "there is no such passage",
    "analysis": "How it came to the answer",
    "output": "All it wrote",
    "route_few": "The first {few} passages were enough.",
    "route_all": "The first {few} passages did not say; all were read.",
    "passages_shown": "Shown to the model: {passages}",
    "page": "page {page}",
    "pages": "pages {first}-{last}",
    "similarity": "similarity {score}",
    "relevant": "relevant",
    "irrelevant": "not relevant",
    "judged_by": "{name}: {verdict}",
    "quoted": "quoted",
    "has_answer": "has the answer",
    "legend_quotes": "Marked: what the answer quotes, word for word.",
    "legend_answer": "Marked: where the answer stands, word for word.",
    "empty_question": "Write a question first.",
    "long_question": "The question has {length} characters; {most} are the most.",
    "nothing_to_ask": "Add a document first: there is nothing to search yet.",
    "nothing_found": "No passage was found.",
    "wrong_kind": "{name} is of a kind that is not read. Add {kinds}.",
    "empty_file": "{name} is empty.",
    "too_large": "{name} is larger than {megabytes} MB.",
    "too_many_files": "{name} was left out: a session holds {most} documents at most.",
    "too_many_sessions": "Too many people use this page at the moment. Try again in some minutes.",
    "failed": "Something went wrong here, and the log of the server says what. Your documents are kept; ask again.",
    "failed_file": "{name} could not be read.",
}
_KOREAN = {
    "title": "내 문서에 질문하기",
    "lead": "답변마다 모델에 제시된 문단, 모델이 인용한 구절, 문단별 관련성 판단을 함께 보여 줍니다. "
    "질문은 서로 이어지지 않고 하나씩 따로 처리됩니다.",
    "page_language": "페이지 언어",
    "upload": "문서 추가",
    "documents": "문서",
    "kinds": "PDF(스캔본 포함), 텍스트, Markdown, HTML. 파일당 최대 {megabytes}MB. "
    "추가한 문서는 본인만 검색할 수 있으며 페이지를 떠나면 지워집니다.",
    "start": "문서를 추가한 다음, 그 내용에 대해 질문해 보세요.",
    "shared": "이 페이지의 모든 사용자에게 공개",
    "one_passage": "문단 1개",
    "passages": "문단 {count}개",
    "options": "답변 방식",
    "compare": "원본 모델과 나란히 비교",
    "route": "먼저 문단 {few}개로 시도하고, 답이 없으면 {passages}개 전부 사용(Self-Route)",
    "answer_language": "답변 언어",
    "as_asked": "질문 그대로",
    "english": "영어",
    "korean": "한국어",
    "departs": "답변 언어를 지정하면 학습 때 없던 문장이 프롬프트에 추가됩니다.",
    "question": "질문",
    "question_hint": "문서에 나오는 내용을 질문해 보세요. Enter 키로 보냅니다.",
    "ask": "질문하기",
    "stop": "중지",
    "forget": "내 문서와 질문 모두 삭제",
    "forgotten": "문서와 질문을 모두 삭제했습니다.",
    "reading": "{name} 읽는 중 ...",
    "read": "{name}: {passages}.",
    "searching": "검색 중 ...",
    "writing": "답변 작성 중 ...",
    "done": "{seconds}초 걸렸습니다.",
    "stopped": "중지했습니다.",
    "tuned": "미세조정 모델",
    "base": "원본 모델",
    "abstained": "제시된 문단에는 답이 없습니다.",
    "no_answer": "답변을 쓰지 않았습니다.",
    "not_well_formed": "출력이 요청한 형식과 다릅니다.",
    "quotes": "인용한 구절",
    "not_verbatim": "해당 문단에 그대로 나오지 않음",
    "no_such_passage": "그런 번호의 문단이 없음",
    "analysis": "답에 이른 과정",
    "output": "전체 출력",
    "route_few": "앞의 문단 {few}개로 충분했습니다.",
    "route_all": "앞의 문단 {few}개에 답이 없어 전부 읽었습니다.",
    "passages_shown": "모델에 제시된 {passages}",
    "page": "{page}쪽",
    "pages": "{first}-{last}쪽",
    "similarity": "유사도 {score}",
    "relevant": "관련 있음",
    "irrelevant": "관련 없음",
    "judged_by": "{name}: {verdict}",
    "quoted": "인용됨",
    "has_answer": "답 포함",
    "legend_quotes": "표시된 부분: 답변이 그대로 인용한 구절.",
    "legend_answer": "표시된 부분: 답이 그대로 나오는 곳.",
    "empty_question": "먼저 질문을 입력하세요.",
    "long_question": "질문이 {length}자입니다. 최대 {most}자까지 쓸 수 있습니다.",
    "nothing_to_ask": "먼저 문서를 추가하세요. 아직 검색할 내용이 없습니다.",
    "nothing_found": "찾은 문단이 없습니다.",
    "wrong_kind": "{name}: 읽을 수 없는 형식입니다. {kinds} 파일을 추가하세요.",
    "empty_file": "{name}: 빈 파일입니다.",
    "too_large": "{name}: {megabytes}MB보다 큽니다.",
    "too_many_files": "{name}: 추가하지 않았습니다. 한 세션에 문서는 최대 {most}개입니다.",
    "too_many_sessions": "지금 사용자가 너무 많습니다. 몇 분 뒤에 다시 시도하세요.",
    "failed": "서버에서 문제가 생겼습니다. 자세한 내용은 서버 로그에 있습니다. 문서는 그대로이니 다시 질문해 주세요.",
    "failed_file": "{name}: 읽지 못했습니다.",
}
WORDS: dict[PageLanguage, dict[str, str]] = {"en": _ENGLISH, "ko": _KOREAN}


def say(language: PageLanguage, what: str, **values: object) -> str:
    """Return a sentence of the page; `values` fill its places."""
    return WORDS[language][what].format(**values)


def counted(language: PageLanguage, count: int) -> str:
    """Return a number of passages in words."""
    return say(language, "one_passage" if count == 1 else "passages", count=count)


def preferred(accept_language: str) -> PageLanguage:
    """Return the page's language for what a browser accepts, as its header `Accept-Language` says it."""
    wanted = [entry.strip().lower()[:2] for entry in accept_language.split(",")]
    return next((language for entry in wanted for language in LANGUAGES if entry == language), "en")
