// Moments in the viewer's time zone.
export function absolute(at) {
  return new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" }).format(at * 1000);
}

export function relative(at) {
  const seconds = at - Date.now() / 1000;
  const size = Math.abs(seconds);
  const format = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
  if (size < 10) return "just now";
  if (size < 60) return format.format(Math.round(seconds), "second");
  if (size < 3600) return format.format(Math.round(seconds / 60), "minute");
  if (size < 86400) return format.format(Math.round(seconds / 3600), "hour");
  if (size < 30 * 86400) return format.format(Math.round(seconds / 86400), "day");
  return new Intl.DateTimeFormat(undefined, { dateStyle: "medium" }).format(at * 1000);
}
