import { useEffect, useId, useState } from 'react';
import { isZone } from '../calendar';
import { show, type View } from '../view';

/** The zones that this browser knows, UTC first. */
const ZONES = ['UTC', ...(Intl.supportedValuesOf?.('timeZone') ?? []).filter((zone) => zone !== 'UTC')];

/** A time zone by search; the browser's own and UTC are a click away. */
export function ZonePicker({ view }: { view: View }) {
  const id = useId();
  const [text, setText] = useState(view.zone);
  useEffect(() => setText(view.zone), [view.zone]);
  const set = (zone: string) => {
    setText(zone);
    const known = ZONES.find((one) => one.toLowerCase() === zone.trim().toLowerCase()) ?? zone.trim();
    if (known && isZone(known)) show({ ...view, zone: known });
  };
  return (
    <label className="field zone" htmlFor={id}>
      <span>Time zone</span>
      <input
        id={id}
        list={`${id}-zones`}
        value={text}
        spellCheck={false}
        aria-invalid={!isZone(text.trim() || '-')}
        onFocus={(event) => event.target.select()}
        onChange={(event) => {
          // A whole name is taken at once, as it is when one is chosen from the list.
          if (ZONES.includes(event.target.value)) set(event.target.value);
          else setText(event.target.value);
        }}
        onBlur={() => (isZone(text.trim() || '-') ? set(text) : setText(view.zone))}
        onKeyDown={(event) => event.key === 'Enter' && set(text)}
      />
      <datalist id={`${id}-zones`}>
        {ZONES.map((zone) => (
          <option key={zone} value={zone} />
        ))}
      </datalist>
    </label>
  );
}
