import { useState } from 'react';

const LONG = 14;
const isUuid = (text: string) => /^[0-9a-f]{8}-/i.test(text) && text.length === 36;

/** An id as people can bear it. */
export const shortened = (value: string) => (isUuid(value) && value.length > LONG ? `${value.slice(0, 8)}…` : value);

/** An id, shortened; a click copies all of it. `bare`: its text is shown beside. */
export function Id({ value, bare = false }: { value: string; bare?: boolean }) {
  const [copied, setCopied] = useState(false);
  const copy = () =>
    navigator.clipboard.writeText(value).then(
      () => {
        setCopied(true);
        setTimeout(() => setCopied(false), 1500);
      },
      () => setCopied(false),
    );
  return (
    <button type="button" className="id" onClick={copy} title={`${value}: click to copy`} aria-label={`Copy ${value}`}>
      {!bare && <bdi>{shortened(value)}</bdi>}
      <svg className="glyph" viewBox="0 0 16 16" aria-hidden="true">
        {copied ? <path d="M3 8.5 6.5 12 13 4.5" /> : <path d="M5.5 5.5h7v8h-7zM3.5 10.5v-8h7" />}
      </svg>
    </button>
  );
}
