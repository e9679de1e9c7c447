"""Pages of the console in a browser that notes whatever goes wrong there."""

from __future__ import annotations

from urllib.parse import urlsplit

WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
"""


class Looking:
    """Call it with a place (``#/commands``) for a page that shows it, signed in."""

    def __init__(self, browser, url, token):
        self.browser = browser
        self.url = url.rstrip("/")
        self.token = token
        self.requests = []
        self.errors = []
        self._contexts = []

    def __call__(self, place="", *, signed_in=True, **options):
        context = self.context(signed_in=signed_in, **options)
        page = context.new_page()
        page.goto(f"{self.url}/{place}")
        return page

    def context(self, *, signed_in=True, **options):
        options.setdefault("viewport", {"width": 1360, "height": 850})
        context = self.browser.new_context(**options)
        context.set_default_timeout(10_000)
        context.add_init_script(WATCH)
        if signed_in:
            context.add_init_script(
                "if (location.protocol !== 'about:' && !sessionStorage.getItem('left')) "
                f"sessionStorage.setItem('thingctl.token', {self.token!r})"
            )
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self._contexts.append(context)
        return context

    def close(self):
        try:
            for context in self._contexts:
                for page in context.pages:
                    self.errors += page.evaluate("window.violations ?? []")
        finally:
            for context in self._contexts:
                context.close()
        origin = urlsplit(self.url)
        foreign = [url for url in self.requests if urlsplit(url)[:2] != origin[:2]]
        assert foreign == [], f"a request left the origin: {foreign}"
        assert self.errors == [], f"an error, or something that the policy stopped: {self.errors}"
