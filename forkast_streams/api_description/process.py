"""The routes about the process itself and about its other routes; anybody may read them."""

from __future__ import annotations

from forkast_streams.api_description.answers import Health, Readiness
from forkast_streams.api_description.routes import Answer, Parameter, Route

OPENAPI_PATH = "/openapi.json"
ASYNCAPI_PATH = "/asyncapi.json"
DOCS_PATH = "/docs"
DOCS_FILE_PATH = "/docs/{file}"
_TAG = "Process"

HEALTH_ROUTES = (
    Route(
        "GET",
        "/health",
        "getHealth",
        "Whether the process answers",
        _TAG,
        (Answer(200, "It does.", Health),),
        credentials="none",
    ),
    Route(
        "GET",
        "/ready",
        "getReadiness",
        "Whether the role does its work",
        _TAG,
        (
            Answer(200, "It is recovered, assigned and caught up.", Readiness),
            Answer(503, "It is not, for these reasons.", Readiness),
        ),
        credentials="none",
    ),
)
# In the form in which they are registered.
DESCRIPTION_PATHS = frozenset({OPENAPI_PATH, ASYNCAPI_PATH, DOCS_PATH, DOCS_FILE_PATH})
DESCRIPTION_ROUTES = (
    Route(
        "GET",
        OPENAPI_PATH,
        "getOpenApi",
        "This description",
        _TAG,
        (Answer(200, "OpenAPI 3.1.", dict),),
        credentials="none",
    ),
    Route(
        "GET",
        ASYNCAPI_PATH,
        "getAsyncApi",
        "The topics and streams",
        _TAG,
        (Answer(200, "AsyncAPI 3.0.", dict),),
        credentials="none",
    ),
    Route(
        "GET",
        DOCS_PATH,
        "getDocs",
        "A page to read this description and to try the routes",
        _TAG,
        (Answer(200, "The page.", media="text/html"),),
        credentials="none",
    ),
    Route(
        "GET",
        DOCS_FILE_PATH,
        "getDocsFile",
        "What the page is made of",
        _TAG,
        (Answer(200, "The file.", media="*/*"),),
        errors={404: ("NOT_FOUND",)},
        parameters=(Parameter("file", "path", {"type": "string"}, "A file's name."),),
        credentials="none",
    ),
)
