"""The plugins of Apprise that a receiver may use: they speak HTTP with the library requests, and read no file.

The address guard sees each of their requests. Others open sockets of their own (irc, mailto, mqtt, rsyslog, nostr),
notify on this machine (syslog, dbus), or read a file that their URL names (fcm, vapid). A plugin that a newer Apprise
brings is refused until it is added here.
"""

__all__ = ["HTTP_PLUGINS"]

HTTP_PLUGINS = frozenset(
    """
acs africas_talking apprise_api awswhatsapp bale bark betterstack bluesky brevo bulksms bulkvs burstsms chanify
clickatell clicksend cliq cm custom_form custom_json custom_xml d7networks dapnet dingtalk discord dot eight00com
emby enigma2 evolution exotel feishu firehydrant flock flowtriq fluxer fortysixelks freemobile github goalert
google_chat gorush gotify groundmail groupme guilded gupshup home_assistant httpsms humhub ifttt ilert incidentio
infobip instagram jellyfin jira join kakaotalk kaleyra kavenegar kodi kook kumulos lametric lark lauther lfgalarm
line mailersend mailgun mastodon matrix mattermost messagebird misskey mobilemessage msg91 nextcloud nextcloudtalk
notica notifiarr notifico notifyapp notifyre ntfy octopush office365 one_signal onebot opsgenie opsimate pagerduty
pagertree parseplatform pinglet pingram plivo postmark prowl pushbullet pushdeer pushed pushjet pushme pushover
pushplus pushsafer pushward pushy qq reddit resend revolt ringcentral rocketchat ryver sendgrid sendpulse serverchan
serwersms ses seven sfr signal_api signalgrid signl4 simplepush sinch slack smsc smseagle smsmanager smstunnel
smtp2go sns sogs sparkpost spike splunk spugpush squadcast stackfield streamlabs synology techuluspush telegram
telesign telnyx threema trigv twilio twist twitter viber voipms vonage webexteams wechat wecombot whapi whatsapp
workflows wpush wxpusher xmatters youlmk zalo zoom zulip
""".split()  # noqa: SIM905 - a line for each would be long
)
"""Names of the modules below ``apprise.plugins``."""
