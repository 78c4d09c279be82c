// Comfort only: the page works without it.
for (const button of document.querySelectorAll("[data-copy]")) {
  const from = document.getElementById(button.dataset.copy);
  if (!navigator.clipboard || !from) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText("value" in from ? from.value : from.textContent);
    const label = button.ariaLabel;
    button.textContent = button.ariaLabel = "Copied";
    setTimeout(() => { button.textContent = "Copy"; button.ariaLabel = label; }, 2000);
  });
}
// The form follows what was pasted: the first characters of a token tell its kind, and an address is no token.
const secret = document.getElementById("secret");
const recognized = document.querySelector("[data-recognized]");
if (secret && recognized) {
  const choose = (kind, note) => {
    document.querySelector(`input[name=method][value=${kind}]`).checked = true;
    recognized.textContent = note;
  };
  const address = document.getElementById("username");
  secret.addEventListener("input", () => {
    const pasted = secret.value.trim();
    if (pasted.startsWith("ATATT")) choose("basic", "This is an Atlassian API token. It needs the e-mail address of its account.");
    else if (pasted.startsWith("ATCTT")) choose("api_token", "This is a workspace access token.");
  });
  secret.addEventListener("change", () => {
    const pasted = secret.value.trim();
    if (!/^[^@\s]+@[^@\s]+\.[^@\s]+$/.test(pasted)) return;
    choose("basic", "That was an e-mail address. The token is still missing.");
    address.value = pasted;
    secret.value = "";
  });
}
// While a sync is asked for or running, its part of the page is renewed.
const renew = async () => {
  const shown = document.querySelector("[data-live]");
  if (!shown) return;
  try {
    const answer = await fetch(shown.dataset.live, { redirect: "error" });
    const text = answer.ok ? await answer.text() : "";
    const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("syncs");
    const isRead = shown.contains(document.activeElement) || shown.querySelector("details[open]");
    if (fresh && !(isRead && fresh.dataset.live)) shown.replaceWith(fresh);
    // The rest of the page is of before the sync; it is renewed where nobody is filling in a form.
    const isIdle = !document.querySelector("input:focus, select:focus, details[open]");
    if (fresh && !fresh.dataset.live && isIdle) location.replace(shown.dataset.live.replace(/\/syncs$/, ""));
  } catch {
    return; // signed out, or the server has stopped: reloading the page tells
  }
  setTimeout(renew, 2000);
};
setTimeout(renew, 2000);
document.getElementById("failure")?.focus();
